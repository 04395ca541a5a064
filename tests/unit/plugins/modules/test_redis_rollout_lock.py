# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator reads of a lock, and what the controller gets to decide with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.modules import redis_rollout_lock


def owner(run: str) -> dict[str, Any]:
    """What a run says of itself."""
    return {"run": run, "who": f"{run}@deploy", "controller": "c", "pid": 4242, "started": "7"}


@pytest.fixture
def lock(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run the module for a run."""

    def run(state: str, whose: str = "", check: bool = False, **more: Any) -> dict[str, Any]:
        args = {"state": state, "path": str(tmp_path / "state" / "rollout.lock"), **more}
        return run_module(redis_rollout_lock.main, {**args, "owner": owner(whose)} if whose else args, check)

    return run


def test_one_run_after_another(lock: Any) -> None:
    assert lock("read") == {**lock("read"), "changed": False, "holder": {}, "taken_over": False}
    for check in (True, False):
        first = lock("held", "first", check)
        assert (first["changed"], first["holder"], first["taken_over"]) == (False, {}, False)
    found = lock("read")["holder"]
    assert {**found, "since": ""} == {**owner("first"), "since": ""}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["since"])
    for check in (True, False):
        second = lock("held", "second", check)
        assert second["failed"]
        assert second["holder"] == found
        assert f"held by first@deploy (process 4242 there), since {found['since']}, " in second["msg"]
        assert (
            "Wait until that rollout has ended. Should it be dead, run again with -e redis_rollout_take"
            in second["msg"]
        )
        assert lock("released", "second", check)["holder"] == found
    assert lock("released", "first", check=True)["holder"] == found
    gone = lock("released", "first")
    assert (gone["changed"], gone["holder"]) == (False, found)
    assert lock("read")["holder"] == {}


def test_a_dead_run_loses_it_without_a_word_another_with_a_warning(lock: Any) -> None:
    lock("held", "first")
    second = lock("held", "second", gone=["first"])
    assert (second["taken_over"], second["holder"]["run"]) == (True, "first")
    assert "warnings" not in second
    third = lock("held", "third", take_over=True)
    assert (third["taken_over"], third["holder"]["run"]) == (True, "second")
    assert third["warnings"][0].startswith("the lock of second@deploy, held since 20")
    assert "warnings" not in lock("held", "third", take_over=True)


def test_a_broken_one_is_told_by_its_time_alone(lock: Any, tmp_path: Path) -> None:
    lock("held", "first")
    (tmp_path / "state" / "rollout.lock").write_text("")
    found = lock("read")["holder"]
    assert (found["run"], found["who"], found["pid"]) == ("", "", 0)
    assert "held by nobody knows whom" in lock("held", "first")["msg"]
    assert "the lock of nobody knows whom" in lock("held", "first", take_over=True)["warnings"][0]
    assert lock("read")["holder"]["run"] == "first"


@pytest.mark.parametrize("state", ["held", "released"])
def test_only_reading_is_for_anybody(lock: Any, state: str) -> None:
    assert "missing: owner" in lock(state)["msg"]
