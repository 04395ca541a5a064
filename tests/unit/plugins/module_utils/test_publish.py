# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the central side lays out is what a site picks from."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _publish, _pull
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_repository

OLD = {"architecture": "x86_64", "libc": "glibc 2.31", "redis": "6.0.16"}
NEW = {"architecture": "x86_64", "libc": "glibc 2.36", "redis": "7.0.15"}
BUILT = {
    "inputs": "0123456789abcdef99",
    "sha256": "aa",
    "architecture": "x86_64",
    "glibc": "2.14",
    "header_sha256": "h",
}


def test_the_folder_of_a_platform() -> None:
    assert _publish.platform_name(OLD) == "x86_64-glibc2.31-redis6.0"
    assert (
        _publish.platform_name({"architecture": "aarch64", "libc": "unknown", "redis": ""})
        == "aarch64-unknown-redisany"
    )


def test_each_module_is_built_once_for_a_platform() -> None:
    module: dict[str, Any] = {"name": "m", "src": "x"}
    other = {**module, "defines": ["A"]}
    gone = {"name": "g", "state": "absent"}
    declared = {"a": [module, gone], "b": [module, other], "c": [module]}
    found = _publish.shares(declared, {"a": OLD, "b": {**OLD, "redis": "6.0.20"}, "c": NEW})
    assert found == {"a": [module], "b": [other], "c": [module]}


def test_an_entry_of_the_manifest_is_one_that_a_site_finds() -> None:
    module = {"name": "m", "src": "../m", "args": ["1"]}
    entry = _publish.entry(module, BUILT, OLD)
    assert entry["path"] == "artifacts/x86_64-glibc2.31-redis6.0/m/0123456789abcdef/m.so"
    found = _pull.from_repository([module], [entry], NEW, "/tree")
    assert found[0]["artifact"] == "/tree/" + entry["path"]
    with pytest.raises(ValueError, match=r"was built for Redis 7\.0\.15"):
        _pull.from_repository([module], [_publish.entry(module, BUILT, NEW)], OLD, "/tree")
    # One that was built elsewhere fits whatever it fits.
    foreign = _publish.entry(module, {**BUILT, "header_sha256": ""}, NEW)
    assert _pull.from_repository([module], [foreign], OLD, "/tree")


def test_other_platforms_keep_what_they_have() -> None:
    module = {"name": "m", "src": "x"}
    old, new = _publish.entry(module, BUILT, OLD), _publish.entry(module, BUILT, NEW)
    again = _publish.entry(module, {**BUILT, "inputs": "f" * 64}, NEW)
    assert _publish.merged([old, new], [again]) == [old, again]
    assert _publish.merged([], [new, old]) == [old, new]


@pytest.mark.parametrize(("name", "words"), [("any", []), ("cp39-x86_64", ["3.9", "cp39", "manylinux2014_x86_64"])])
def test_wheels_come_with_their_digests_checked(name: str, words: list[str]) -> None:
    command = _publish.download_command("python3", name, "pins", "/wheels")
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps", "/wheels", *words} <= set(command)
    assert ("--python-version" in command) == bool(words)


def test_an_unknown_wheel_set_is_told() -> None:
    with pytest.raises(_publish.PublishError, match="wheel set 'py3' is neither any nor named as cp39-x86_64"):
        _publish.download_command("python3", "py3", "pins", "/wheels")


def test_what_a_site_would_not_know_again_is_refused() -> None:
    modules = [{"name": "a", "src": "/x"}, {"name": "b", "src": "../x"}, {"name": "c", "state": "absent"}]
    assert [fault.split(":")[0] for fault in _publish.module_faults(modules, "/m")] == ["module a"]


# ---------------------------------------------------------------- the module


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "installed"
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "a.py").write_text("a")
    (folder / "left over.pyc").write_text("b")
    files = [
        {"name": ".", "ftype": "dir"},
        {"name": "plugins", "ftype": "dir"},
        {"name": "plugins/a.py", "ftype": "file"},
    ]
    (folder / "FILES.json").write_text(json.dumps({"files": files}))
    info = {"namespace": "edgeops", "name": "redis_modules", "version": "1.2.3"}
    (folder / "MANIFEST.json").write_text(json.dumps({"collection_info": info}))
    return folder


@pytest.fixture
def lay_out(
    run_module: Callable[..., dict[str, Any]], collection: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    def run(*artifacts: dict[str, str], **more: Any) -> dict[str, Any]:
        args = {"path": str(tmp_path / "fleet"), "collection": str(collection), "artifacts": list(artifacts), **more}
        return run_module(redis_repository.main, args)

    (tmp_path / "fleet" / "wheels" / "any").mkdir(parents=True)
    (tmp_path / "fleet" / "wheels" / "any" / "a.whl").write_text("wheel")
    (tmp_path / "fleet" / "wheels" / "any" / "pins.txt").write_text("pins")
    return run


def artifact(folder: Path, platform: dict[str, str], inputs: str = "1" * 16) -> dict[str, str]:
    """An artifact that is there."""
    entry = _publish.entry({"name": "m", "src": "x"}, {**BUILT, "inputs": inputs}, platform)
    path = folder / "fleet" / entry["path"]
    path.parent.mkdir(parents=True)
    path.write_text(inputs)
    (path.parent / "manifest.json").write_text("{}")
    return {**entry, "sha256": _host.sha256_of(str(path))}


def test_a_repository_that_a_site_takes(lay_out: Any, tmp_path: Path) -> None:
    built = artifact(tmp_path, OLD)
    assert lay_out(built, also=["files"])["changed"] is True
    manifest = json.loads((tmp_path / "fleet" / "edgeops.json").read_text())
    assert _pull.manifest_faults(manifest, "main") == ""
    assert manifest["also"] == ["files"]
    names = _pull.wanted(
        ["edgeops.json", "collection/edgeops-redis_modules-1.2.3.tar.gz", built["path"], "wheels/any/a.whl", "x"],
        "pump1",
        manifest,
        OLD,
        ["any"],
    )
    assert len(names) == 4
    for path, digest in _pull.digests(manifest, OLD, ["any"]):
        assert _host.sha256_of(str(tmp_path / "fleet" / path)) == digest
    with tarfile.open(str(tmp_path / "fleet" / manifest["collection"]["path"])) as archive:
        assert archive.getnames() == ["FILES.json", "MANIFEST.json", "plugins/a.py"]
    assert lay_out(built, also=["files"])["changed"] is False


def test_what_is_over_goes(lay_out: Any, tmp_path: Path) -> None:
    first, other = artifact(tmp_path, OLD), artifact(tmp_path, NEW)
    lay_out(first, other)
    second = artifact(tmp_path, NEW, "2" * 16)
    done = lay_out(second)
    assert [found["path"] for found in done["artifacts"]] == [first["path"], second["path"]]
    assert sorted(done["removed"]) == sorted([other["path"], os.path.dirname(other["path"]) + "/manifest.json"])
    assert not (tmp_path / "fleet" / other["path"]).exists()


def test_a_changed_artifact_is_told(lay_out: Any, tmp_path: Path) -> None:
    built = artifact(tmp_path, OLD)
    (tmp_path / "fleet" / built["path"]).write_text("other")
    assert f"{built['path']} is not what was built" in lay_out(built)["msg"]


def test_a_checkout_is_no_collection_to_carry(lay_out: Any, collection: Path) -> None:
    (collection / "MANIFEST.json").unlink()
    assert "is a checkout; run the playbook from an installed one" in lay_out()["msg"]
