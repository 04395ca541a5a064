# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placing: what is done, what is kept, what check mode says, and that a second run does nothing."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _access, _release, _selinux
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_modules_place

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


class Place:
    """The module folder of one host and a way to run the module on it."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]]) -> None:
        self.root = root
        self.folder = root / "modules"
        self.path = self.folder / "a.so"
        self._run = run

    def artifact(self, content: bytes) -> str:
        path = self.root / hashlib.sha256(content).hexdigest()[:8]
        path.write_bytes(content)
        return str(path)

    def __call__(self, *entries: dict[str, Any], check: bool = False, **args: Any) -> dict[str, Any]:
        given = {"folder": str(self.folder), "owner": USER, "group": GROUP, "modules": list(entries), **args}
        return self._run(redis_modules_place.main, given, check)

    def entry(self, content: bytes = b"one", **keys: Any) -> dict[str, Any]:
        return {"name": "a", "path": str(self.path), "artifact": self.artifact(content), **keys}

    def tree(self) -> list[Any]:
        """Return all that is there, to see whether anything changed."""
        return sorted((str(p), p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_mode) for p in self.root.rglob("*"))


@pytest.fixture
def place(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Place:
    return Place(tmp_path, run_module)


def test_the_first_run_places_and_the_second_does_nothing(place: Place) -> None:
    entry = place.entry()
    assert place(entry)["changed"]
    assert place.path.read_bytes() == b"one"
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o555
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o755
    before = place.tree()
    second = place(entry)
    assert (second["changed"], second["placed"]) == (False, [])
    assert second["diff"] == {"before": "", "after": ""}
    assert place.tree() == before


def test_check_mode_says_the_same_and_changes_nothing(place: Place) -> None:
    entry = place.entry()
    before = place.tree()
    said = place(entry, check=True)
    assert place.tree() == before
    done = place(entry)
    assert said["changed"] is done["changed"] is True
    assert said["placed"] == done["placed"]
    assert said["diff"] == done["diff"]


def test_check_mode_on_a_host_that_has_no_such_user_yet(place: Place) -> None:
    said = place(place.entry(), check=True, owner="no-such-user")
    assert said["changed"]
    assert not place.folder.exists()


def test_check_mode_where_nothing_is_built_yet(place: Place) -> None:
    said = place({"name": "a", "path": str(place.path)}, check=True)
    assert said["placed"][-1] == f"module a: would be placed at {place.path} once it is built"


def test_check_mode_does_not_call_a_file_absent_that_is_there(place: Place) -> None:
    place(place.entry())
    said = place({"name": "a", "path": str(place.path), "artifact": "/not/built/yet"}, check=True)
    assert f"{place.path} absent" not in said["diff"]["before"]


def test_an_update_is_a_new_inode_and_keeps_the_release_before(place: Place) -> None:
    place(place.entry(b"one"))
    with open(place.path, "rb") as held:
        done = place(place.entry(b"two"))
        assert held.read() == b"one"
    assert place.path.read_bytes() == b"two"
    (kept,) = done["releases"]["a"]
    assert Path(kept).read_bytes() == b"one"
    assert done["placed"] == [f"module a: placed {hashlib.sha256(b'two').hexdigest()[:16]} at {place.path}"]


def test_a_drifted_mode_is_mended_without_touching_the_mapped_file(place: Place) -> None:
    place(place.entry())
    place.path.chmod(0o777)
    inode = place.path.stat().st_ino
    said = place(place.entry(), check=True)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o777
    done = place(place.entry())
    assert said["placed"] == done["placed"]
    assert "mended owner or mode of" in done["placed"][0]
    assert " 0777 " in done["diff"]["before"]
    assert (stat.S_IMODE(place.path.stat().st_mode), place.path.stat().st_ino) == (0o555, inode)
    assert done["releases"]["a"] == []


def test_a_drifted_folder_is_mended(place: Place) -> None:
    place(place.entry())
    place.folder.chmod(0o777)
    assert "mended the folder" in place(place.entry())["placed"][0]
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o755


def test_a_second_name_is_left_to_itself(place: Place) -> None:
    place(place.entry())
    other = place.root / "other.so"
    os.link(place.path, other)
    said = place(place.entry(), check=True)
    assert place.path.stat().st_nlink == 2
    done = place(place.entry())
    assert said["placed"] == done["placed"]
    assert "it has 2 names (hard links)" in done["placed"][0]
    assert [path.stat().st_nlink for path in (place.path, other)] == [1, 1]
    assert done["releases"]["a"] == []
    assert not place(place.entry())["changed"]


def test_a_link_in_its_place_is_replaced(place: Place) -> None:
    place(place.entry())
    place.path.rename(place.root / "elsewhere.so")
    place.path.symlink_to(place.root / "elsewhere.so")
    done = place(place.entry())
    assert "is a symbolic link to" in done["diff"]["before"]
    assert not place.path.is_symlink()
    assert not place(place.entry())["changed"]


def test_a_module_folder_that_is_a_link_is_refused(place: Place) -> None:
    (place.root / "real").mkdir()
    place.folder.symlink_to(place.root / "real")
    failed = place(place.entry())
    assert failed["msg"] == f"the module folder: {place.folder} is a symbolic link to {place.root / 'real'}"
    assert list((place.root / "real").iterdir()) == []


def test_what_chattr_set_is_taken_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bits: dict[str, int] = {}
    place(place.entry())
    monkeypatch.setattr(_access, "_flags", lambda path: bits.get(path, 0))
    monkeypatch.setattr(_access, "_set_flags", bits.__setitem__)
    bits.update({str(place.folder): 0x10, str(place.path): 0x20})
    said = place(place.entry(), check=True)
    assert bits == {str(place.folder): 0x10, str(place.path): 0x20}
    done = place(place.entry())
    assert said["placed"] == done["placed"]
    assert ["immutable" in done["placed"][0], "append-only" in done["placed"][1]] == [True, True]
    assert bits == {str(place.folder): 0, str(place.path): 0}
    assert not place(place.entry())["changed"]


def test_selinux_is_told_where_it_is_on(place: Place, commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_selinux, "enabled", lambda: True)
    monkeypatch.setattr(_selinux.shutil, "which", lambda name: f"/usr/sbin/{name}")
    commands.answer("matchpathcon", out="system_u:object_r:redis_var_lib_t:s0\n")
    said = place(place.entry(), check=True)
    assert commands.with_start("restorecon") == []
    done = place(place.entry())
    assert said["placed"] == done["placed"]
    assert commands.with_start("restorecon") == [["restorecon", "-R", str(place.folder)]]
    commands.answer("semanage", code=1, err="ValueError: no")
    failed = place(place.entry(b"two"))
    assert "SELinux is on, and semanage fcontext -l -C failed: ValueError: no" in failed["msg"]
    assert place.path.read_bytes() == b"one"


def test_every_folder_on_the_way_can_be_entered_whatever_the_umask(place: Place) -> None:
    place.folder = place.root / "new" / "modules"
    place.path = place.folder / "a.so"
    before = os.umask(0o077)
    try:
        place(place.entry())
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.root / "new", place.folder)] == [0o755, 0o755]


@pytest.mark.parametrize(("keep", "left"), [(2, [b"2", b"3"]), (1, [b"3"]), (0, [])])
def test_only_the_last_releases_are_kept(place: Place, keep: int, left: list[bytes]) -> None:
    for number, content in enumerate([b"1", b"2", b"3", b"4"]):
        done = place(place.entry(content), keep=keep)
        for kept in done["releases"]["a"]:
            if Path(kept).stat().st_mtime > 1000:
                os.utime(kept, (number, number))
    assert [Path(kept).read_bytes() for kept in done["releases"]["a"]] == left
    assert place.path.read_bytes() == b"4"


def test_an_absent_one_is_taken_away_and_kept_as_a_release(place: Place) -> None:
    place(place.entry())
    gone = {"name": "a", "path": str(place.path), "state": "absent"}
    before = place.tree()
    said = place(gone, check=True)
    assert place.tree() == before
    done = place(gone)
    assert said["placed"] == done["placed"] == [f"module a: took {place.path} away"]
    assert not place.path.exists()
    assert [Path(kept).read_bytes() for kept in done["releases"]["a"]] == [b"one"]
    assert not place(gone)["changed"]


def test_a_crash_leaves_the_old_file_and_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place(place.entry(b"one"))

    def full(*_: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_release, "replace", full)
    failed = place(place.entry(b"two"))
    assert failed["failed"]
    assert "No space left on device; what was there before is still in place" in failed["msg"]
    assert place.path.read_bytes() == b"one"


@pytest.mark.parametrize("path", ["/etc/passwd", "{}/../a.so", "{}/sub/a.so", "{}-other/a.so"])
def test_a_path_outside_the_folder_is_refused_before_anything_is_made(place: Place, path: str) -> None:
    failed = place({**place.entry(), "path": path.format(place.folder)})
    assert failed["failed"]
    assert "lies outside the module folder" in failed["msg"]
    assert not place.folder.exists()


def test_another_digest_than_declared_is_refused(place: Place) -> None:
    failed = place(place.entry(sha256="0" * 64))
    assert failed["failed"]
    assert f"wanted {'0' * 64}" in failed["msg"]
    assert not place.path.exists()


def test_an_artifact_that_is_not_there(place: Place) -> None:
    failed = place({"name": "a", "path": str(place.path), "artifact": "/nowhere/a.so"})
    assert failed["msg"] == "module a: there is no file at /nowhere/a.so"


def test_an_unknown_owner_is_told_with_what_to_do(place: Place) -> None:
    failed = place(place.entry(), owner="no-such-user")
    assert failed["failed"]
    assert "no-such-user" in failed["msg"]
    assert "install Redis first" in failed["msg"]
    assert not place.folder.exists()


def test_a_release_that_is_gone_back_to_stays_as_old_as_it_is_and_is_kept(place: Place) -> None:
    """With one release kept, both are there: the file in its place takes no other's room."""
    place(place.entry(b"one"), keep=1)
    os.utime(place.path, (1000, 1000))
    (kept,) = place(place.entry(b"two"), keep=1)["releases"]["a"]
    assert os.stat(kept).st_mtime == 1000
    done = place({"name": "a", "path": str(place.path), "artifact": kept}, keep=1)
    assert place.path.read_bytes() == b"one"
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o555
    assert place.path.stat().st_mtime == 1000
    assert sorted(Path(release).read_bytes() for release in done["releases"]["a"]) == [b"one", b"two"]
