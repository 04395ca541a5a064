# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An artifact is built or fetched once, kept by all that it was made of, and named when it can't be."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _cache,
    _declaration,
    _elf,
    _host,
    _workshop,
)
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_module_artifact

GOOD_MODULE = "int RedisModule_OnLoad(void *c, void **v, int n) { (void)c; (void)v; (void)n; return 0; }\n"


class Builder:
    """A host with a compiler that only copies a finished .so, and the controller's part of the work."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]], commands: Any, so: str) -> None:
        self.root, self.commands, self.so, self._run = root, commands, so, run
        self.src = root / "src"
        self.src.mkdir()
        (self.src / "a.c").write_text("int a;")
        self.cache = root / "cache"
        self.version = "gcc (Debian 12.2.0-14) 12.2.0\nmore\n"
        commands.answer("gcc", do=self.compile)
        self.answer_version()

    def answer_version(self) -> None:
        self.commands.answer("gcc", "--version", out=self.version)

    def compile(self, command: list[str], cwd: str = "", **_: Any) -> None:
        target = Path(cwd) / command[command.index("-o") + 1]
        target.write_bytes(Path(self.so).read_bytes())

    def run(self, step: str, check: bool = False, **args: Any) -> dict[str, Any]:
        """Run the module as the action does."""
        return self._run(redis_module_artifact.main, {"step": step, "cache": str(self.cache), **args}, check)

    def job(self, header: str = "", **options: Any) -> dict[str, Any]:
        """Return what the plan asks for."""
        files = _build.source_files(str(self.src))
        entry = _declaration.completed({"name": "a", "src": "src", **options}, "/")
        digest = _build.tree_digest(str(self.src), files)
        return {
            **_build.options_of(entry),
            "name": "a",
            "src": str(self.src),
            "header": header,
            "source_digest": digest,
            "inputs": "",
            "request": _build.request_of(entry, digest, header),
        }

    def archive(self, folder: Path | None = None) -> bytes:
        """Return the sources as they are sent."""
        files = _build.source_files(str(self.src))
        names = _workshop.names_of_sources(str(self.src), files, self.job()["source_digest"])
        if folder:
            names = {name: str(folder / os.path.basename(path)) for name, path in names.items()}
        return _build.pack(names)

    def jobs(self, *jobs: dict[str, Any], archive: bytes | None = None, **args: Any) -> dict[str, Any]:
        """Have jobs done."""
        content = base64.b64encode(self.archive() if archive is None else archive).decode()
        return self.run("build", modules=list(jobs), _content=content, **args)

    def __call__(self, header: str = "", cc: str = "gcc", keep: int = 5, **options: Any) -> dict[str, Any]:
        """Have the one job done; return what came of it, with where the artifact lies."""
        result = self.jobs(self.job(header, **options), cc=cc, keep=keep)
        if result.get("failed"):
            return result
        (item,) = result["made"]
        path = _cache.path_of(str(self.cache), "a", item["inputs"]) if item["inputs"] else ""
        return {**result, **item, "path": path, "sha256": item.get("manifest", {}).get("sha256", "")}

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
    monkeypatch.setattr(_workshop.shutil, "which", lambda name: None if name == "no-cc" else f"/usr/bin/{name}")
    return Builder(tmp_path, run_module, commands, build_so())


def test_the_first_run_builds_and_the_second_finds_it(build: Builder) -> None:
    first = build()
    assert first["changed"]
    content = Path(first["path"]).read_bytes()
    assert content == Path(build.so).read_bytes()
    assert first["sha256"] == hashlib.sha256(content).hexdigest()
    count = build.compiled()
    assert count == 2
    second = build()
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
        monkeypatch.setattr(_cache.fcntl, "flock", flock)
        waited.append(build()["changed"])
        flock(stream, how)

    monkeypatch.setattr(_cache.fcntl, "flock", wait)
    assert not build()["changed"]
    assert waited == [True]
    assert build.compiled() == 2


def test_the_manifest_tells_what_it_was_made_of(build: Builder) -> None:
    result = build()
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


def test_what_is_known_to_be_there_needs_no_compiler(build: Builder) -> None:
    first = build()
    known = {**build.job(), "inputs": first["inputs"]}
    again = build.jobs(known, cc="no-cc", archive=b"")
    assert not again["changed"]
    assert again["made"][0]["inputs"] == first["inputs"]
    assert again["_content"] == first["_content"]


def test_what_was_built_comes_with_the_answer_unless_it_is_large(
    build: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = build()
    _build.unpack(base64.b64decode(result["_content"]), str(tmp_path / "there"))
    assert (tmp_path / "there" / "a" / result["inputs"] / "a.so").read_bytes() == Path(build.so).read_bytes()
    monkeypatch.setattr(_workshop, "INLINE", 10)
    assert build()["_content"] == ""


def test_a_job_that_fails_keeps_no_other_from_being_done(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", code=1, err="no\n")
    commands.answer("make", do=lambda command, cwd, **_: shutil.copy(build.so, Path(cwd) / "out.so"))
    result = build.jobs(build.job(), build.job(make_target="all", make_output="out.so"))
    failed, made = result["made"]
    assert failed["fault"].startswith("it does not build")
    assert not failed["inputs"]
    assert made["inputs"]
    assert not made["fault"]


def test_a_header_that_was_brought_is_kept_and_used(build: Builder, tmp_path: Path) -> None:
    (tmp_path / "redismodule.h").write_text("brought")
    files = _build.source_files(str(build.src))
    names = _workshop.names_of_sources(str(build.src), files, build.job()["source_digest"])
    archive = _build.pack({**names, "redismodule.h": str(tmp_path / "redismodule.h")})
    result = build.jobs(build.job("7.0.15"), archive=archive, header_name="7.0.15")
    manifest = result["made"][0]["manifest"]
    assert manifest["header_sha256"] == hashlib.sha256(b"brought").hexdigest()
    assert f"-I{build.cache}/headers/7.0.15" in manifest["commands"][0]
    assert not build("7.0.15")["changed"]


def test_a_look_tells_what_is_there(build: Builder, commands: Any, tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("")
    commands.answer(str(binary), out="Redis server v=7.0.15 sha=0")
    made = build()
    look = {"binary": str(binary), "_sources": {"a": [build.job()["source_digest"]]}, "_headers": ["server"]}
    for check in (False, True):
        seen = build.run("look", check, **look)
        assert not seen["changed"]
        assert (seen["redis"], seen["compiler"]) == ("7.0.15", "gcc (Debian 12.2.0-14) 12.2.0")
        header = f"{build.cache}/headers/7.0.15/redismodule.h"
        assert seen["headers"] == {"server": {"name": "7.0.15", "path": header, "sha256": ""}}
        (held,) = seen["artifacts"]["a"]
        assert (held["inputs"], held["request"]) == (made["inputs"], made["request"])
        assert (held["path"], held["sha256"]) == (made["path"], made["sha256"])
    Path(made["path"]).write_bytes(b"tampered with")
    assert build.run("look", **look)["artifacts"] == {}
    assert build.run("look", _sources={"a": ["another"]})["artifacts"] == {}


def test_a_look_at_a_host_that_has_nothing(build: Builder) -> None:
    seen = build.run("look", True, cc="no-cc", binary="/nowhere", _sources={"a": ["x"]}, _headers=["server"])
    assert (seen["redis"], seen["compiler"], seen["artifacts"]) == ("", "", {})
    assert seen["headers"]["server"]["sha256"] == ""
    assert not build.cache.exists()


def test_a_compiler_that_fails_is_shown(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", code=1, err=f"{build.cache}/build/a/src/a.c:1: error: nonsense\n")
    failed = build()
    assert failed["fault"].startswith("it does not build (gcc: exit status 1):\na.c:1: error: nonsense\n")


def test_a_missing_header_is_told_with_how_to_mend_it(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", code=1, err="a.c:1:10: fatal error: redismodule.h: No such file or directory\n")
    assert "redismodule.h was not found. To mend it, give redis_toolchain_header" in build()["fault"]


def test_warnings_are_shown(build: Builder, commands: Any) -> None:
    commands.answer("gcc", "-fPIC", err="a.c:1: warning: unused\n", do=build.compile)
    result = build()
    assert result["compiler_output"] == ["a.c:1: warning: unused"]
    assert "a.c:1: warning: unused" in json.dumps(result["warnings"])


def test_no_compiler_is_told_with_what_to_do(build: Builder) -> None:
    failed = build(cc="no-cc")
    assert "there is no C compiler 'no-cc' here; run the role redis_toolchain first" in failed["fault"]


def test_a_header_that_is_not_there(build: Builder) -> None:
    assert build("/nowhere/redismodule.h")["fault"] == "there is no header at /nowhere/redismodule.h"


def test_what_was_built_is_inspected(build: Builder, build_so: Any) -> None:
    build.so = build_so(name="bad.so", source="int x;\n")
    assert "what was built can't be loaded here: it does not export RedisModule_OnLoad" in build()["fault"]


@pytest.mark.parametrize("left", [1, 10, 60])
def test_a_damaged_transfer_is_told_and_not_thrown(build: Builder, left: int) -> None:
    failed = build.jobs(build.job(), archive=build.archive()[:left])
    assert failed["failed"]
    assert failed["msg"]


def test_sources_that_changed_on_their_way_are_not_taken_for_those_that_were_digested(build: Builder) -> None:
    other = build.root / "other"
    other.mkdir()
    (other / "a.c").write_text("int other;")
    result = build.jobs(build.job(), archive=build.archive(other))
    assert "the sources changed on the controller" in result["made"][0]["fault"]
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
        assert failed["fault"] == "make all ended well, but left no out.so; correct make_output"


class TestLay:
    """What was made elsewhere is taken in: built by another machine, or by somebody else."""

    def lay(self, build: Builder, files: dict[str, str], **piece: Any) -> dict[str, Any]:
        content = base64.b64encode(_build.pack(files)).decode() if files else ""
        return build.run("lay", modules=[{"name": "a", "artifact": "", **piece}], _content=content)

    def built(self, build: Builder) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what another machine has built, and its files by their names in the archive."""
        made = build()
        files = _cache.names_in_archive(str(build.cache), [("a", made["inputs"])])
        build.cache.rename(build.root / "elsewhere")
        moved = {name: path.replace(str(build.cache), str(build.root / "elsewhere")) for name, path in files.items()}
        return made, moved

    def test_it_is_laid_once_and_no_compiler_is_asked(self, build: Builder) -> None:
        made, files = self.built(build)
        count = len(build.commands.ran)
        laid = self.lay(build, files, inputs=made["inputs"])
        assert laid["changed"]
        assert laid["artifacts"] == {"a": {"path": made["path"], "sha256": made["sha256"]}}
        assert Path(made["path"]).read_bytes() == Path(build.so).read_bytes()
        assert json.loads((Path(made["path"]).parent / "manifest.json").read_text()) == made["manifest"]
        again = self.lay(build, {}, inputs=made["inputs"])
        assert (again["changed"], again["artifacts"]) == (False, laid["artifacts"])
        assert len(build.commands.ran) == count
        assert laid.get("invocation", {}).get("module_args", {}).get("_content") is None

    def test_one_that_was_tampered_with_is_laid_anew(self, build: Builder) -> None:
        made, files = self.built(build)
        self.lay(build, files, inputs=made["inputs"])
        Path(made["path"]).write_bytes(b"tampered with")
        assert self.lay(build, files, inputs=made["inputs"])["changed"]
        assert Path(made["path"]).read_bytes() == Path(build.so).read_bytes()

    def test_what_is_not_what_was_built_is_refused(self, build: Builder, build_so: Any) -> None:
        made, files = self.built(build)
        other = build_so(name="other.so", source=GOOD_MODULE + "int more;\n")
        name = next(name for name in files if name.endswith(".so"))
        failed = self.lay(build, {**files, name: other}, inputs=made["inputs"])
        assert failed["msg"] == "module a: what was sent is not what was built; run again"
        assert not Path(made["path"]).exists()

    def test_one_for_a_newer_c_library_is_refused_with_who_built_it(
        self, build: Builder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, files = self.built(build)
        monkeypatch.setattr(_elf, "misfits", lambda *_: ["it needs glibc 2.34 or newer, this host has 2.31"])
        failed = self.lay(build, files, inputs=made["inputs"])
        platform = made["manifest"]["platform"]
        assert failed["msg"].startswith(
            f"module a: what was built on {platform['architecture']}, {platform['libc']} can't"
        )
        assert failed["msg"].endswith("an older one: see redis_build_on")
        assert not Path(made["path"]).exists()

    def given(self, build: Builder, **changes: Any) -> dict[str, Any]:
        sha256 = hashlib.sha256(Path(build.so).read_bytes()).hexdigest()
        return {"artifact": "a.so", "sha256": sha256, "inputs": _build.inputs_digest({"sha256": sha256}), **changes}

    def test_one_that_was_given_is_taken_and_found(self, build: Builder) -> None:
        given = self.given(build)
        first = self.lay(build, {f"a/{given['inputs']}/a.so": build.so}, **given)
        assert (first["changed"], first["artifacts"]["a"]["sha256"]) == (True, given["sha256"])
        manifest = json.loads((Path(first["artifacts"]["a"]["path"]).parent / "manifest.json").read_text())
        assert (manifest["origin"], manifest["source_digest"]) == ("artifact", given["sha256"])
        assert not self.lay(build, {}, **given)["changed"]

    def test_a_url_is_fetched_by_the_host(self, build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            redis_module_artifact, "open_url", lambda url, timeout: io.BytesIO(Path(build.so).read_bytes())
        )
        given = self.given(build, artifact="https://files.example.com/a.so")
        assert self.lay(build, {}, **given)["artifacts"]["a"]["sha256"] == given["sha256"]

    def test_a_url_with_other_content_is_refused(self, build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_module_artifact, "open_url", lambda url, timeout: io.BytesIO(b"something else"))
        failed = self.lay(build, {}, **self.given(build, artifact="https://files.example.com/a.so"))
        assert "module a: https://files.example.com/a.so has the digest" in failed["msg"]

    def test_one_that_can_not_be_loaded_here_is_named(self, build: Builder, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(b"text")
        given = self.given(build, sha256=hashlib.sha256(b"text").hexdigest())
        failed = self.lay(build, {f"a/{given['inputs']}/a.so": str(tmp_path / "text")}, **given)
        assert failed["msg"] == "module a: a.so can't be loaded here: it is no shared object (no ELF header)"


@pytest.mark.parametrize(("keep", "left"), [(2, 2), (1, 1), (0, 1)])
def test_old_artifacts_are_dropped_but_never_the_one_just_made(build: Builder, keep: int, left: int) -> None:
    for number in range(3):
        (build.src / "a.c").write_text(f"int a{number};")
        result = build(keep=keep)
        assert os.path.exists(result["path"])
        os.utime(Path(result["path"]).parent, (number, number))
    assert len(list((build.cache / "artifacts" / "a").iterdir())) == left


def test_old_artifacts_of_another_platform_do_not_count(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(keep=1)
    facts = {**_host.facts_of_platform(), "libc": "glibc 99.0"}
    monkeypatch.setattr(_host, "facts_of_platform", lambda: facts)
    assert build(keep=1)["path"] != first["path"]
    assert os.path.exists(first["path"])


def test_without_pyelftools(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_elf, "ELFTOOLS_IMPORT_ERROR", "Traceback")
    failed = build()
    assert "Python library (pyelftools)" in failed["msg"]
