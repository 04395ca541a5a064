# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _scratch


@pytest.mark.parametrize("prefix", [_scratch.TRIAL, _scratch.CONF, _scratch.DROPIN])
def test_a_folder_is_there_for_its_block_alone(tmp_path: Path, prefix: str) -> None:
    def interrupted() -> None:
        with _scratch.folder(prefix, str(tmp_path)) as folder:
            assert os.path.basename(folder).startswith(prefix)
            assert os.stat(folder).st_mode & 0o777 == 0o700
            assert not _scratch.is_left(folder)
            raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_what_nobody_holds_is_left(tmp_path: Path) -> None:
    assert _scratch.is_left(str(tmp_path))
    assert not _scratch.is_left(str(tmp_path), since=60)
    assert not _scratch.is_left(str(tmp_path / "never there"))


def test_what_dead_ones_left_goes_with_its_unit_and_nothing_else_does(tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def run(words: list[str]) -> tuple[int, str, str]:
        ran.append(words)
        return 0, "", ""

    left = [str(tmp_path / f"redis-{what}-left") for what in ("trial", "conf", "dropin")]
    with _scratch.folder(_scratch.TRIAL, str(tmp_path)) as folder:
        for path in [*left, str(tmp_path / "redis-trial-just-made"), str(tmp_path / "other")]:
            os.mkdir(path)
        for path in [folder, *left, str(tmp_path / "other")]:
            os.utime(path, (1, 1))
        assert _scratch.clear_left(run, [str(tmp_path)]) == left
        assert os.path.isdir(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "redis-trial-just-made"]
    unit = "redis-trial-left.service"
    assert ran == [["systemctl", "stop", unit], ["systemctl", "reset-failed", unit]]
