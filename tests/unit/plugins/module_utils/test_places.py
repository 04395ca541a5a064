# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host keeps what rollouts leave word of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _lock, _places, _snapshot


@pytest.mark.parametrize("unit", ["redis-server.service", "redis-server", "redis.service", "redis"])
def test_the_packaged_unit_needs_no_name_under_each_of_its_own(unit: str) -> None:
    assert _places.instance(unit) == ""
    assert _places.receipt(unit) == "/var/lib/edgeops-redis-modules/receipt.json"


def test_others_are_told_apart_by_their_units_name() -> None:
    assert _places.instance("redis-two") == _places.instance("redis-two.service") == "-redis-two.service"
    assert _places.receipt("redis-two") == "/var/lib/edgeops-redis-modules/receipt-redis-two.service.json"
    assert _places.receipt("redis-server@a.service").endswith("/receipt-redis-server@a.service.json")


def test_what_a_rollout_leaves_is_looked_for_where_it_leaves_it() -> None:
    assert _lock.PATH == _places.LOCK
    for unit in ("redis-server.service", "redis-two"):
        assert _snapshot.folder_of(unit) == _places.snapshot(unit)


def test_a_receipt_waits_in_the_snapshot_and_counts_from_when_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_places, "STATE", str(tmp_path))
    folder = tmp_path / "before"
    _places.keep_noted(str(folder), "redis-two")
    folder.mkdir()
    _places.keep_noted(str(folder), "redis-two")
    assert os.listdir(tmp_path) == ["before"]
    Path(_places.receipt("redis-two")).write_text("former")
    Path(_places.noted(str(folder))).write_text("noted")
    _places.keep_noted(str(folder), "redis-two")
    assert Path(_places.receipt("redis-two")).read_text() == "noted"
    assert os.listdir(folder) == []


def test_a_time() -> None:
    assert _places.iso(0) == "1970-01-01T00:00:00Z"
    assert _places.iso(1_000_000_000) == "2001-09-09T01:46:40Z"
