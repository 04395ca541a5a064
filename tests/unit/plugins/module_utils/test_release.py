# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is laid by rename, whole, with its owner and mode; what was there before is kept, some of it."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _release

UID, GID = os.geteuid(), os.getegid()


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who a file was given to, in order; nothing is given away for real, so that any user can run this."""
    given: list[Any] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, gid: given.append((uid, gid)))
    return given


@pytest.fixture
def files(tmp_path: Path) -> Any:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    return str(tmp_path / "new"), str(tmp_path / "target")


@pytest.fixture
def short_time() -> Iterator[None]:
    """End what would go on for ever."""

    def over(*_: Any) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class TestReplace:
    """replace()."""

    def test_whoever_has_the_old_file_open_keeps_the_old_content(self, files: Any, owners: list[Any]) -> None:
        source, target = files
        inode = os.stat(target).st_ino
        with open(target, "rb") as held:
            _release.replace(source, target, UID, GID, 0o555)
            assert held.read() == b"old"
        assert Path(target).read_bytes() == b"new"
        assert os.stat(target).st_ino != inode

    def test_owner_and_mode_are_set(self, files: Any, owners: list[Any]) -> None:
        _release.replace(*files, 123, 456, 0o4555)
        assert owners == [(123, 456)]
        assert stat.S_IMODE(os.stat(files[1]).st_mode) == 0o4555

    def test_they_are_set_before_the_file_has_its_name(
        self, files: Any, owners: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        rename = os.rename

        def renamed(old: str, new: str) -> None:
            seen.append((stat.S_IMODE(os.stat(old).st_mode), len(owners), Path(old).read_bytes(), os.path.dirname(old)))
            rename(old, new)

        monkeypatch.setattr(os, "rename", renamed)
        _release.replace(*files, UID, GID, 0o555)
        assert seen == [(0o555, 1, b"new", os.path.dirname(files[1]))]

    def test_nobody_else_can_read_a_secret_file_while_it_is_written(
        self, files: Any, owners: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes = []
        fchown = os.fchown

        def look(descriptor: int, uid: int, gid: int) -> None:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
            fchown(descriptor, uid, gid)

        monkeypatch.setattr(os, "fchown", look)
        before = os.umask(0o022)
        try:
            _release.replace(*files, UID, GID, 0o640)
        finally:
            os.umask(before)
        assert [mode & 0o077 for mode in modes] == [0]

    @pytest.mark.parametrize("step", ["fchown", "fchmod", "fsync", "rename"])
    def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(
        self, files: Any, owners: list[Any], monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            _release.replace(*files, UID, GID, 0o555)
        assert Path(files[1]).read_bytes() == b"old"
        assert sorted(os.listdir(os.path.dirname(files[1]))) == ["new", "target"]

    def test_a_source_that_is_gone_leaves_the_old_file(self, files: Any, owners: list[Any]) -> None:
        with pytest.raises(FileNotFoundError):
            _release.replace("/nowhere", files[1], UID, GID, 0o555)
        assert Path(files[1]).read_bytes() == b"old"

    def test_two_that_write_at_once_do_not_meet(
        self, files: Any, owners: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that lost its controller goes on for a moment; what gets the name is always whole."""
        fsync = os.fsync
        (tmp_path / "other").write_bytes(b"another")

        def meanwhile(descriptor: int) -> None:
            monkeypatch.setattr(os, "fsync", fsync)
            _release.replace(str(tmp_path / "other"), files[1], UID, GID, 0o555)
            assert Path(files[1]).read_bytes() == b"another"
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", meanwhile)
        _release.replace(*files, UID, GID, 0o555)
        assert Path(files[1]).read_bytes() == b"new"
        assert sorted(os.listdir(tmp_path)) == ["new", "other", "target"]

    def test_what_a_run_that_died_left_can_be_found(self, files: Any, tmp_path: Path) -> None:
        left = [".target.ab12.new", ".target.before-edgeops.cd34.new", ".releases/x/.0123.so.ef56.new"]
        others = [".targets.ab12.new", ".target", "target.new", ".releases/x/0123.so"]
        (tmp_path / ".releases" / "x").mkdir(parents=True)
        for name in left + others:
            (tmp_path / name).write_text("")
        assert sorted(_release.temporaries(files[1])) == sorted(str(tmp_path / name) for name in left)

    def test_it_is_on_the_disk_before_and_after_the_rename(
        self, files: Any, owners: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        fsync, rename = os.fsync, os.rename
        monkeypatch.setattr(
            os,
            "fsync",
            lambda fd: (steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd)),
        )
        monkeypatch.setattr(os, "rename", lambda old, new: (steps.append("rename"), rename(old, new)))
        _release.replace(*files, UID, GID, 0o555)
        assert steps == ["file", "rename", "folder"]

    def test_the_time_is_now_or_that_of_the_source(self, files: Any, owners: list[Any]) -> None:
        os.utime(files[0], (1000, 1000))
        _release.replace(*files, UID, GID, 0o555)
        assert os.stat(files[1]).st_mtime > 1000
        _release.replace(*files, UID, GID, 0o555, keep_time=True)
        assert os.stat(files[1]).st_mtime == 1000

    def test_a_link_is_replaced_and_not_followed(self, files: Any, owners: list[Any], tmp_path: Path) -> None:
        os.symlink(files[1], tmp_path / "link")
        _release.replace(files[0], str(tmp_path / "link"), UID, GID, 0o555)
        assert not (tmp_path / "link").is_symlink()
        assert Path(files[1]).read_bytes() == b"old"


class TestFolders:
    """make_folders()."""

    def test_all_may_enter_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            _release.make_folders(str(tmp_path / "a" / "b"))
        finally:
            os.umask(before)
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o755, 0o755]

    def test_what_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir(mode=0o700)
        _release.make_folders(str(tmp_path / "a" / "b"))
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700

    def test_a_relative_path_comes_to_an_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_time: None
    ) -> None:
        monkeypatch.chdir(tmp_path)
        _release.make_folders("")
        _release.make_folders("a/b")
        assert (tmp_path / "a" / "b").is_dir()


class TestReleases:
    """keep() and surplus()."""

    def current(self, folder: Path, content: bytes, second: int = 0) -> str:
        (folder / "x.so").write_bytes(content)
        os.utime(folder / "x.so", (second, second))
        return str(folder / "x.so")

    def test_a_release_is_kept_by_its_digest_and_read_only(self, tmp_path: Path, owners: list[Any]) -> None:
        current = self.current(tmp_path, b"one")
        kept = _release.keep(str(tmp_path), "x", current)
        assert kept == str(tmp_path / ".releases" / "x" / ("7692c3ad3540bb80" + ".so"))
        assert Path(kept).read_bytes() == b"one"
        assert stat.S_IMODE(os.stat(kept).st_mode) == 0o555
        assert owners == [(0, 0)]
        assert Path(current).read_bytes() == b"one"

    def test_the_same_file_is_kept_once_and_is_as_old_as_it_was_in_its_place(
        self, tmp_path: Path, owners: list[Any]
    ) -> None:
        one = _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one", 1))
        two = _release.keep(str(tmp_path), "x", self.current(tmp_path, b"two", 2))
        assert _release.surplus(str(tmp_path), "x", 0) == [one, two]
        inode = os.stat(one).st_ino
        assert _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one", 3)) == one
        assert os.stat(one).st_ino == inode
        assert _release.surplus(str(tmp_path), "x", 0) == [two, one]

    def test_a_damaged_release_is_kept_anew(self, tmp_path: Path, owners: list[Any]) -> None:
        kept = _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one"))
        os.chmod(kept, 0o600)
        Path(kept).write_bytes(b"on")
        assert _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one")) == kept
        assert Path(kept).read_bytes() == b"one"

    def test_the_one_in_place_is_neither_counted_nor_surplus(self, tmp_path: Path, owners: list[Any]) -> None:
        for second, content in enumerate((b"one", b"two", b"three")):
            _release.keep(str(tmp_path), "x", self.current(tmp_path, content, second))
        one, two, three = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two", b"three"))
        surplus = [Path(path).stem for path in _release.surplus(str(tmp_path), "x", 1, current=one)]
        assert surplus == [two[:16]]
        surplus = [Path(path).stem for path in _release.surplus(str(tmp_path), "x", 1, current=three)]
        assert surplus == [one[:16]]

    @pytest.mark.parametrize(("count", "gone"), [(0, 4), (1, 3), (3, 1), (4, 0), (9, 0)])
    def test_the_oldest_are_surplus(self, tmp_path: Path, owners: list[Any], count: int, gone: int) -> None:
        kept = [
            _release.keep(str(tmp_path), "x", self.current(tmp_path, content)) for content in (b"d", b"a", b"c", b"b")
        ]
        for second, path in enumerate(kept):
            os.utime(path, (second, second))
        assert _release.surplus(str(tmp_path), "x", count) == kept[:gone]

    def test_other_modules_and_other_files_are_never_surplus(self, tmp_path: Path, owners: list[Any]) -> None:
        _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one"))
        (tmp_path / ".releases" / "x" / "README").write_text("")
        assert len(_release.surplus(str(tmp_path), "x", 0)) == 1
        assert _release.surplus(str(tmp_path), "y", 0) == []

    def test_an_unknown_owner_is_a_keyerror_that_names_it(self) -> None:
        assert _release.owner_ids("root", "root") == (0, 0)
        with pytest.raises(KeyError, match="no-such-user"):
            _release.owner_ids("no-such-user", "root")
        with pytest.raises(KeyError, match="no-such-group"):
            _release.owner_ids("root", "no-such-group")


class History:
    """A module's file and releases on a host, as place and put back leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.path = str(folder / "x.so")
        self.clock = 0

    def place(self, source: str) -> None:
        """Place a file as redis_modules_place does."""
        if os.path.exists(self.path):
            _release.keep(self.folder, "x", self.path)
        _release.replace(source, self.path, UID, GID, 0o555, _release.is_kept(self.folder, source))

    def rollout(self, content: str) -> None:
        """Place something new, a minute later."""
        self.clock += 60
        source = os.path.join(self.folder, "built")
        Path(source).write_text(content)
        if not os.path.exists(self.path) or Path(self.path).read_text() != content:
            self.place(source)
            os.utime(self.path, (self.clock, self.clock))

    def rollback(self, wanted: str) -> None:
        """Go back to what is asked for, by content or as previous."""
        digest = wanted if wanted == "previous" else hashlib.sha256(wanted.encode()).hexdigest()
        release = self.choose(digest)
        if not release["current"]:
            self.place(release["path"])

    def choose(self, wanted: str) -> Any:
        """Return what would be gone back to."""
        return _release.chosen("x", wanted, [r.as_dict() for r in _release.found(self.folder, "x", self.path)])

    def runs(self) -> str:
        """Return what is in place."""
        return Path(self.path).read_text()


@pytest.fixture
def history(tmp_path: Path, owners: list[Any]) -> History:
    return History(tmp_path)


class TestPrevious:
    """What "previous" means: the release before the newest one that was rolled out, whatever was gone back to since."""

    def test_the_same_command_again_stays_where_it_is(self, history: History) -> None:
        for content in "abc":
            history.rollout(content)
        for _again in range(3):
            history.rollback("previous")
            assert history.runs() == "b"
        history.rollback("a")
        history.rollback("previous")
        assert history.runs() == "b"

    def test_after_going_forward_again(self, history: History) -> None:
        for content in "abc":
            history.rollout(content)
        history.rollback("previous")
        history.rollout("c")
        history.rollback("previous")
        assert history.runs() == "b"
        history.rollback("c")
        history.rollback("previous")
        assert history.runs() == "b"

    def test_after_a_rollout_from_where_it_was_gone_back_to(self, history: History) -> None:
        for content in "ab":
            history.rollout(content)
        history.rollback("previous")
        history.rollout("c")
        assert history.choose("previous")["sha256"] == hashlib.sha256(b"b").hexdigest()

    def test_after_the_source_was_reverted_and_rolled_out(self, history: History) -> None:
        for content in "abac":
            history.rollout(content)
        history.rollback("previous")
        assert history.runs() == "a"

    def test_a_failed_rollout_is_none(self, history: History, tmp_path: Path) -> None:
        for content in "ab":
            history.rollout(content)
        _release.replace(history.path, str(tmp_path / "copy"), UID, GID, 0o600, keep_time=True)
        history.rollout("bad")
        _release.replace(str(tmp_path / "copy"), history.path, UID, GID, 0o555, keep_time=True)
        history.rollback("previous")
        assert history.runs() == "a"

    def test_there_is_none(self, history: History) -> None:
        with pytest.raises(_release.ReleaseError, match=r"module x: there is no release before .*; this host has none"):
            history.choose("previous")
        history.rollout("a")
        with pytest.raises(_release.ReleaseError, match=r"has ca978112ca1bbdca of 1970-01-01T00:01:00Z \(in place\)"):
            history.choose("previous")

    def test_a_damaged_file_is_no_release(self, history: History) -> None:
        for content in "ab":
            history.rollout(content)
        kept = history.choose("previous")["path"]
        os.chmod(kept, 0o600)
        Path(kept).write_text("cut")
        with pytest.raises(_release.ReleaseError, match="no release before"):
            history.choose("previous")


def release(digest: str, current: bool = False) -> dict[str, Any]:
    """Return one as redis_modules_info does."""
    return {"sha256": digest * 64, "path": f"/{digest}.so", "rolled_out": "then", "size": 1, "current": current}


class TestChoice:
    """wanted_faults() and artifacts()."""

    modules = ({"name": "a", "state": "present"}, {"name": "b", "state": "present"}, {"name": "c", "state": "absent"})

    @pytest.mark.parametrize(
        ("wanted", "fault"),
        [
            ({"x": "previous"}, "module x: it is not declared"),
            ({"c": "previous"}, "module c: it is declared absent"),
            ({"a": "abc"}, "6 or more"),
            ({"a": 1234567}, "in quotes"),
            ({"a": "ABCDEF"}, "must be previous"),
            ({"a": None}, "must be previous"),
            (["a"], "must be a dictionary"),
        ],
    )
    def test_what_is_wrong(self, wanted: Any, fault: str) -> None:
        (found,) = _release.wanted_faults(self.modules, wanted)
        assert fault in found

    @pytest.mark.parametrize("wanted", [{}, {"a": "previous"}, {"a": "abcdef", "b": "0" * 64}])
    def test_what_is_right(self, wanted: Any) -> None:
        assert _release.wanted_faults(self.modules, wanted) == []

    def test_the_others_stay_with_what_is_in_place(self) -> None:
        releases = {"a": [release("2", True), release("1")], "b": [release("3"), release("4", True)]}
        assert _release.artifacts(self.modules, {"a": "1" * 6}, releases) == {
            "a": {"path": "/1.so", "sha256": "1" * 64},
            "b": {"path": "/4.so", "sha256": "4" * 64},
        }

    def test_all_that_is_missing_is_told_at_once(self) -> None:
        with pytest.raises(_release.ReleaseError) as caught:
            _release.artifacts(self.modules, {"a": "9" * 6}, {"a": [release("2", True)]})
        first, second = str(caught.value).splitlines()
        assert first == "module a: there is no release 999999; this host has 2222222222222222 of then (in place)"
        assert second == "module b: this host does not have it yet; run the playbook rollout first"

    def test_digits_that_fit_several(self) -> None:
        twins = [{**release("1"), "sha256": "abcdef1"}, {**release("1"), "sha256": "abcdef2"}]
        with pytest.raises(_release.ReleaseError, match="several releases abcdef; this host has abcdef1 of then, abc"):
            _release.chosen("a", "abcdef", twins)
