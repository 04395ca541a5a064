# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight's module: it tells what was judged, and fails for none of it."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _survey
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_preflight


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[_survey.Wanted]:
    asked: list[_survey.Wanted] = []
    facts = _survey.Facts(
        kernel="4.9.0",
        os_release={"ID": "debian", "VERSION_ID": "12"},
        booted_by_systemd=True,
        systemd=252,
        overcommit="0",
        cores=1.0,
    )
    monkeypatch.setattr(_survey, "look", lambda run, wanted: asked.append(wanted) or facts)
    return asked


@pytest.mark.parametrize("check", [True, False])
def test_it_tells_all_and_fails_for_none(
    run_module: Callable[..., dict[str, Any]], looked: list[_survey.Wanted], check: bool
) -> None:
    said = run_module(redis_preflight.main, {"packages": ["redis"], "io_threads": 4, "ignore": ["cores"]}, check)
    assert (said["changed"], "failed" in said) == (False, False)
    assert [(finding["level"], finding["subject"]) for finding in said["findings"]] == [
        ("fault", "kernel"),
        ("warning", "overcommit"),
    ]
    assert set(said["findings"][0]) == {"level", "subject", "found", "wanted", "mend"}
    assert len(said["faults"]) == 1
    assert (looked[0].packages, looked[0].io_threads, looked[0].header) == (("redis",), "4", "")


def test_it_fails_where_it_is_asked_to(run_module: Callable[..., dict[str, Any]], looked: list[_survey.Wanted]) -> None:
    said = run_module(redis_preflight.main, {"io_threads": 4, "fail_as": "h7"})
    assert said["failed"]
    lines = said["msg"].splitlines()
    assert lines[0] == "h7: nothing was touched, as this stands against it:"
    assert lines[1:-1] == said["faults"]
    assert lines[-1] == "What you take knowingly, name in redis_preflight_ignore."
    assert said["runs"] is False
    assert "failed" not in run_module(redis_preflight.main, {"ignore": ["kernel"], "fail_as": "h7"})


def test_a_subject_that_there_is_not_is_refused(
    run_module: Callable[..., dict[str, Any]], looked: list[_survey.Wanted]
) -> None:
    said = run_module(redis_preflight.main, {"ignore": ["kernels"]})
    assert said["failed"]
    assert "kernels" in said["msg"]
    assert looked == []
