# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered before a rollout, and put back."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _release, _snapshot


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a folder with a redis.conf; whoever runs the tests owns everything."""
    (tmp_path / "redis.conf").write_text("port 1\n")
    (tmp_path / "redis.conf").chmod(0o640)
    user = (tmp_path / "redis.conf").owner()
    group = (tmp_path / "redis.conf").group()
    ids = _release.owner_ids(user, group)
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    monkeypatch.setattr(_release, "owner_ids", lambda *_words: ids)
    return tmp_path


def take(host: Path, pid: int = 7) -> _snapshot.Snapshot:
    """Take a snapshot of a file that is there and of one that is not."""
    paths = [str(host / "redis.conf"), str(host / "new.so")]
    return _snapshot.take(str(host / "kept" / "before"), paths, pid, {"a": 1})


def test_what_is_taken_is_read_back(host: Path) -> None:
    taken = take(host)
    assert _snapshot.load(str(host / "kept" / "before")) == taken
    assert (taken.pid, taken.modules) == (7, {"a": 1})


def test_only_root_can_read_it_for_it_may_hold_passwords(host: Path) -> None:
    taken = take(host)
    assert stat.S_IMODE((host / "kept" / "before").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(taken.files[0].copy).stat().st_mode) == 0o600


def test_what_changed_is_put_back_and_what_is_new_taken_away(host: Path) -> None:
    taken = take(host)
    (host / "redis.conf").write_text("port 2\n")
    (host / "redis.conf").chmod(0o600)
    (host / "new.so").write_text("new")
    assert _snapshot.put_back(taken) == [str(host / "redis.conf"), str(host / "new.so")]
    assert (host / "redis.conf").read_text() == "port 1\n"
    assert stat.S_IMODE((host / "redis.conf").stat().st_mode) == 0o640
    assert not (host / "new.so").exists()


def test_what_did_not_change_is_not_touched(host: Path) -> None:
    taken = take(host)
    inode = (host / "redis.conf").stat().st_ino
    assert _snapshot.put_back(taken) == []
    assert (host / "redis.conf").stat().st_ino == inode


def test_it_is_put_back_by_rename_for_a_server_may_have_it_mapped(host: Path) -> None:
    taken = take(host)
    (host / "redis.conf").write_text("port 2\n")
    with (host / "redis.conf").open() as held:
        _snapshot.put_back(taken)
        assert held.read() == "port 2\n"


def test_a_folder_that_is_gone_is_made_again(host: Path) -> None:
    path = host / "service.d" / "own.conf"
    path.parent.mkdir()
    path.write_text("old")
    taken = _snapshot.take(str(host / "kept" / "before"), [str(path)], 7, {})
    path.unlink()
    path.parent.rmdir()
    assert _snapshot.put_back(taken) == [str(path)]
    assert path.read_text() == "old"


def test_a_closed_one_is_gone(host: Path) -> None:
    take(host)
    _snapshot.close(str(host / "kept" / "before"))
    assert _snapshot.load(str(host / "kept" / "before")) is None
    assert not (host / "kept" / "before").exists()
    _snapshot.close(str(host / "kept" / "before"))


def test_one_that_was_not_finished_does_not_count(host: Path) -> None:
    take(host)
    (host / "kept" / "before" / _snapshot.INDEX).unlink()
    assert _snapshot.load(str(host / "kept" / "before")) is None
