# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is laid by rename, whole, with its owner and mode; what was there before is kept, some of it."""

from __future__ import annotations

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

    def test_what_a_killed_run_left_is_written_over(self, files: Any, owners: list[Any], tmp_path: Path) -> None:
        (tmp_path / ".target.new").write_bytes(b"half of a much longer file")
        _release.replace(*files, UID, GID, 0o555)
        assert Path(files[1]).read_bytes() == b"new"
        assert sorted(os.listdir(tmp_path)) == ["new", "target"]

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

    def current(self, folder: Path, content: bytes) -> str:
        (folder / "x.so").write_bytes(content)
        return str(folder / "x.so")

    def test_a_release_is_kept_by_its_digest_and_read_only(self, tmp_path: Path, owners: list[Any]) -> None:
        current = self.current(tmp_path, b"one")
        kept = _release.keep(str(tmp_path), "x", current)
        assert kept == str(tmp_path / ".releases" / "x" / ("7692c3ad3540bb80" + ".so"))
        assert Path(kept).read_bytes() == b"one"
        assert stat.S_IMODE(os.stat(kept).st_mode) == 0o444
        assert owners == [(0, 0)]
        assert Path(current).read_bytes() == b"one"

    def test_the_same_file_is_kept_once_and_counts_as_the_newest(self, tmp_path: Path, owners: list[Any]) -> None:
        one = _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one"))
        two = _release.keep(str(tmp_path), "x", self.current(tmp_path, b"two"))
        os.utime(one, (1, 1))
        os.utime(two, (2, 2))
        assert _release.surplus(str(tmp_path), "x", 0) == [one, two]
        inode = os.stat(one).st_ino
        assert _release.keep(str(tmp_path), "x", self.current(tmp_path, b"one")) == one
        assert os.stat(one).st_ino == inode
        assert _release.surplus(str(tmp_path), "x", 0) == [two, one]

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
