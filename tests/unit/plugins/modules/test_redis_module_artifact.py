# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An artifact is built or fetched once, kept by all that it was made of, and named when it can't be."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _elf, _host
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_module_artifact


class Builder:
    """A host with a compiler that only copies a finished .so, and the controller's part of the work."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]], commands: Any, so: str) -> None:
        self.root, self.commands, self.so, self._run = root, commands, so, run
        self.src = root / "src"
        self.src.mkdir()
        (self.src / "a.c").write_text("int a;")
        self.cache = root / "cache"
        self.warning = ""
        self.version = "gcc (Debian 12.2.0-14) 12.2.0\nmore\n"
        commands.answer("gcc", do=self.compile)
        self.answer_version()

    def answer_version(self) -> None:
        self.commands.answer("gcc", "--version", out=self.version)

    def compile(self, command: list[str], cwd: str = "", **_: Any) -> None:
        target = Path(cwd) / command[command.index("-o") + 1]
        target.write_bytes(Path(self.so).read_bytes())

    def __call__(self, check: bool = False, send: bool = True, **args: Any) -> dict[str, Any]:
        files = _build.source_files(str(self.src))
        given = {
            "name": "a",
            "src": "src",
            "cache": str(self.cache),
            "_source": {"files": files, "digest": _build.tree_digest(str(self.src), files)},
            **args,
        }
        if send and "artifact" not in args:
            _build.pack(str(self.src), files, str(self.root / "sent.tar.gz"))
            given["_archive"] = str(self.root / "sent.tar.gz")
        if "artifact" in args:
            del given["src"], given["_source"]
        return self._run(redis_module_artifact.main, given, check)

    def compiled(self) -> int:
        """Return how often a compiler or make did something."""
        return len([command for command in self.commands.ran if command[-1] != "--version"])


@pytest.fixture
def build(
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
    commands: Any,
    build_so: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Builder:
    monkeypatch.setattr(
        redis_module_artifact.AnsibleModule,
        "get_bin_path",
        lambda self, name: None if name == "no-cc" else f"/usr/bin/{name}",
    )
    return Builder(tmp_path, run_module, commands, build_so())


def test_the_first_run_builds_and_the_second_finds_it(build: Builder) -> None:
    first = build()
    assert first["changed"]
    content = Path(first["path"]).read_bytes()
    assert content == Path(build.so).read_bytes()
    assert first["sha256"] == hashlib.sha256(content).hexdigest()
    count = build.compiled()
    assert count == 2
    for check, send in ((False, False), (True, False)):
        second = build(check, send)
        assert (second["changed"], second["path"], second["sha256"], second["manifest"]) == (
            False,
            first["path"],
            first["sha256"],
            first["manifest"],
        )
    assert build.compiled() == count


def test_one_that_another_instance_built_meanwhile_is_not_built_again(
    build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take the same folder to build in, so the second waits, and looks again."""
    flock, waited = fcntl.flock, []

    def wait(stream: Any, how: int) -> None:
        monkeypatch.setattr(redis_module_artifact.fcntl, "flock", flock)
        waited.append(build()["changed"])
        flock(stream, how)

    monkeypatch.setattr(redis_module_artifact.fcntl, "flock", wait)
    assert not build()["changed"]
    assert waited == [True]
    assert build.compiled() == 2


def test_the_manifest_tells_what_it_was_made_of(build: Builder) -> None:
    result = build(header=None)
    manifest = result["manifest"]
    assert json.loads((Path(result["path"]).parent / "manifest.json").read_text()) == manifest
    assert (manifest["name"], manifest["origin"], manifest["architecture"]) == ("a", "src", os.uname().machine)
    assert manifest["compiler"] == "gcc (Debian 12.2.0-14) 12.2.0"
    assert manifest["sha256"] == result["sha256"]
    assert manifest["size"] == os.path.getsize(result["path"])
    assert [command[0] for command in manifest["commands"]] == ["gcc", "gcc"]


def test_time_stamps_alone_build_nothing(build: Builder) -> None:
    build()
    os.utime(build.src / "a.c", (1, 1))
    assert not build()["changed"]


def change_source(build: Builder) -> dict[str, Any]:
    (build.src / "a.c").write_text("int b;")
    return {}


def change_compiler(build: Builder) -> dict[str, Any]:
    build.version = "gcc (Debian 14.2.0) 14.2.0\n"
    build.answer_version()
    return {}


def change_header(build: Builder) -> dict[str, Any]:
    (build.root / "redismodule.h").write_text("x")
    return {"header": str(build.root / "redismodule.h")}


@pytest.mark.parametrize(
    "change",
    [
        change_source,
        change_compiler,
        change_header,
        lambda build: {"cflags": ["-O0"]},
        lambda build: {"defines": ["X"]},
        lambda build: {"libraries": ["m"]},
        lambda build: {"ldflags": ["-Lx"]},
        lambda build: {"sources": ["a.c"]},
        lambda build: {"include_dirs": ["inc"]},
    ],
    ids=["source", "compiler", "header", "cflags", "defines", "libraries", "ldflags", "sources", "include_dirs"],
)
def test_every_input_that_changes_builds_anew(build: Builder, change: Any) -> None:
    first = build()
    args = change(build)
    assert build(check=True, **args)["changed"]
    second = build(**args)
    assert second["changed"]
    assert second["path"] != first["path"]


def test_another_c_library_builds_anew(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    facts = {**_host.facts_of_platform(), "libc": "glibc 99.0"}
    monkeypatch.setattr(_host, "facts_of_platform", lambda: facts)
    assert build()["changed"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda so, manifest: so.write_bytes(b"x"),
        lambda so, manifest: so.unlink(),
        lambda so, manifest: manifest.unlink(),
        lambda so, manifest: manifest.write_text("{"),
        lambda so, manifest: manifest.write_text("{}"),
        lambda so, manifest: manifest.write_text("[]"),
    ],
)
def test_a_cache_that_is_damaged_is_built_anew(build: Builder, damage: Any) -> None:
    path = Path(build()["path"])
    content = path.read_bytes()
    path.chmod(0o755)
    damage(path, path.parent / "manifest.json")
    again = build()
    assert again["changed"]
    assert path.read_bytes() == content


def test_check_mode_builds_nothing(build: Builder) -> None:
    said = build(check=True)
    assert (said["changed"], said["path"], said["sha256"]) == (True, "", "")
    assert not build.cache.exists()
    assert build.compiled() == 0


def test_sources_are_asked_for_only_where_they_are_needed(build: Builder) -> None:
    assert build(send=False)["needs"] == "source"
    build()
    assert "needs" not in build(send=False)


def test_a_compiler_that_fails_is_shown(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", code=1, err=f"{build.cache}/build/a/src/a.c:1: error: nonsense\n")
    failed = build()
    assert failed["failed"]
    assert failed["msg"].startswith("module a: it does not build (gcc: exit status 1):\na.c:1: error: nonsense\n")


def test_a_missing_header_is_told_with_how_to_mend_it(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", code=1, err="a.c:1:10: fatal error: redismodule.h: No such file or directory\n")
    assert "redismodule.h was not found. To mend it, give redis_toolchain_header" in build()["msg"]


def test_warnings_are_shown(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", err="a.c:1: warning: unused\n", do=build.compile)
    result = build()
    assert result["compiler_output"] == ["a.c:1: warning: unused"]
    assert "a.c:1: warning: unused" in json.dumps(result["warnings"])


def test_no_compiler_is_told_with_what_to_do(build: Builder) -> None:
    failed = build(cc="no-cc")
    assert "module a: there is no C compiler 'no-cc' on this host; run the role redis_toolchain first" in failed["msg"]


def test_a_header_that_is_not_there(build: Builder) -> None:
    assert build(header="/nowhere/redismodule.h")["msg"] == "module a: there is no header at /nowhere/redismodule.h"


def test_what_was_built_is_inspected(build: Builder, build_so: Any) -> None:
    build.so = build_so(name="bad.so", source="int x;\n")
    assert "what was built can't be loaded here: it does not export RedisModule_OnLoad" in build()["msg"]


@pytest.mark.parametrize("left", [0, 10, 60])
def test_a_damaged_transfer_is_told_and_not_thrown(build: Builder, left: int) -> None:
    archive = build.root / "cut.tar.gz"
    _build.pack(str(build.src), ["a.c"], str(archive))
    archive.write_bytes(archive.read_bytes()[:left])
    failed = build(_archive=str(archive), send=False)
    assert failed["failed"]
    assert failed["msg"].startswith("module a: ")


def test_sources_that_changed_on_their_way_are_not_taken_for_those_that_were_digested(build: Builder) -> None:
    other = build.root / "other"
    other.mkdir()
    (other / "a.c").write_text("int other;")
    _build.pack(str(other), ["a.c"], str(build.root / "other.tar.gz"))
    failed = build(_archive=str(build.root / "other.tar.gz"), send=False)
    assert failed.get("failed")
    assert build.compiled() == 0


class TestMake:
    """A module with its own Makefile."""

    def test_it(self, build: Builder, commands: Any) -> None:
        commands.answer("make", do=lambda command, cwd, **_: shutil.copy(build.so, Path(cwd) / "out.so"))
        result = build(make_target="all", make_output="./out.so", make_args=["V=1"])
        assert result["changed"]
        assert result["manifest"]["origin"] == "make"
        assert result["manifest"]["commands"] == [["make", "all", "V=1"]]

    def test_an_output_that_is_not_left(self, build: Builder) -> None:
        failed = build(make_target="all", make_output="out.so")
        assert failed["msg"] == "module a: make all ended well, but left no out.so; correct make_output"


class TestArtifact:
    """One that was built elsewhere."""

    def given(self, build: Builder, **changes: Any) -> dict[str, Any]:
        return {"artifact": "a.so", "sha256": hashlib.sha256(Path(build.so).read_bytes()).hexdigest(), **changes}

    def test_it_is_asked_for_taken_and_found(self, build: Builder) -> None:
        given = self.given(build)
        assert build(**given)["needs"] == "artifact"
        first = build(**given, _upload=build.so)
        assert (first["changed"], first["sha256"], first["manifest"]["origin"]) == (True, given["sha256"], "artifact")
        assert not build(**given)["changed"]

    def test_a_url_is_fetched_by_the_host(self, build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            redis_module_artifact, "open_url", lambda url, timeout: io.BytesIO(Path(build.so).read_bytes())
        )
        given = self.given(build, artifact="https://files.example.com/a.so")
        assert build(check=True, **given)["changed"]
        assert build(**given)["sha256"] == given["sha256"]

    def test_a_url_with_other_content_is_refused(self, build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_module_artifact, "open_url", lambda url, timeout: io.BytesIO(b"something else"))
        failed = build(**self.given(build, artifact="https://files.example.com/a.so"))
        assert "module a: https://files.example.com/a.so has the digest" in failed["msg"]

    def test_an_upload_with_other_content_is_refused(self, build: Builder, build_so: Any) -> None:
        failed = build(**self.given(build, sha256="0" * 64), _upload=build.so)
        assert failed.get("failed")

    def test_one_that_can_not_be_loaded_here_is_named(self, build: Builder, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(b"text")
        failed = build(artifact="a.so", sha256=hashlib.sha256(b"text").hexdigest(), _upload=str(tmp_path / "text"))
        assert failed["msg"] == "module a: a.so can't be loaded here: it is no shared object (no ELF header)"


@pytest.mark.parametrize(("keep", "left"), [(2, 2), (1, 1), (0, 1)])
def test_old_artifacts_are_dropped_but_never_the_one_just_made(build: Builder, keep: int, left: int) -> None:
    for number in range(3):
        (build.src / "a.c").write_text(f"int a{number};")
        result = build(keep=keep)
        assert os.path.exists(result["path"])
        os.utime(Path(result["path"]).parent, (number, number))
    assert len(list((build.cache / "artifacts" / "a").iterdir())) == left


def test_without_pyelftools(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_elf, "ELFTOOLS_IMPORT_ERROR", "Traceback")
    failed = build()
    assert "Python library (pyelftools)" in failed["msg"]
