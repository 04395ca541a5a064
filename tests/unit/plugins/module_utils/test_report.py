# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's report."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _report

SENSOR: dict[str, Any] = {
    "name": "sensor",
    "verdict": "loaded",
    "differences": [],
    "version": 20000,
    "path": "/m/sensor.so",
    "sha256": "f" * 64,
    "live_sha256": "e" * 64,
}


def test_one_row_for_each_module_in_the_order_of_the_hosts() -> None:
    results = {
        "a": {"server_version": "7.0.15", "verdicts": [SENSOR, {**SENSOR, "name": "other"}]},
        "b": {"server_version": "8.0.2", "verdicts": [SENSOR]},
    }
    rows = _report.rows(["b", "a"], results)
    assert [(row["host"], row["redis"], row["module"]) for row in rows] == [
        ("b", "8.0.2", "sensor"),
        ("a", "7.0.15", "sensor"),
        ("a", "7.0.15", "other"),
    ]


def test_a_row_shows_the_digest_of_what_runs_and_else_of_the_file() -> None:
    def digest(**changes: str) -> str:
        return _report.rows(["a"], {"a": {"verdicts": [{**SENSOR, **changes}]}})[0]["sha256"]

    assert digest() == "e" * 12
    assert digest(live_sha256="") == "f" * 12
    assert digest(live_sha256="", sha256="") == "-"


def test_a_host_without_a_result_was_not_reached() -> None:
    for results in ({}, {"a": {}}, {"a": None}):
        (row,) = _report.rows(["a"], results)
        assert (row["verdict"], row["module"], row["version"], row["redis"]) == ("unconfirmed", "-", "-", "-")
        assert row["differences"] == "it failed or could not be reached in this run"


def test_the_exposure_of_each_host_is_a_number_in_its_rows_and_told_once_below_the_table() -> None:
    results = {"a": {"verdicts": [SENSOR, SENSOR], "exposure": 1.1}, "b": {"verdicts": []}, "c": None}
    rows = _report.rows(["a", "b", "c"], results)
    assert [row["exposure"] for row in rows] == [1.1, 1.1, None, None]
    assert _report.table(rows).splitlines()[-1] == (
        "exposure of the service (systemd-analyze security, 0 to 10): a 1.1"
    )
    assert "exposure" not in _report.table(_report.rows(["b"], results))


def test_a_host_without_modules() -> None:
    assert _report.rows(["a"], {"a": {"verdicts": [], "error": ""}})[0]["verdict"] == "no modules declared"
    assert _report.rows(["a"], {"a": {"verdicts": [], "error": "refused"}})[0]["verdict"] == "broken"


def test_what_a_module_registered_in_its_trial_goes_into_its_row() -> None:
    tried = {"name": "sensor", "commands": ["s.add", "s.get"], "types": {"sensorwin": 2}, "config": {"s.x": "1"}}
    unread = {"name": "other", "commands": [], "types": None, "config": {}, "api": "not known"}
    verdicts = [SENSOR, {**SENSOR, "name": "other"}, {**SENSOR, "name": "untried"}]
    trials = {"a": {"modules": [{**tried, "api": "complete"}, unread]}, "b": {}}
    first, second, third = _report.rows(["a"], {"a": {"verdicts": verdicts}}, trials)
    assert [first[key] for key in ("commands", "types", "config", "api")] == [
        "s.add s.get",
        "sensorwin 2",
        "s.x",
        "complete",
    ]
    assert (second["types"], second["api"]) == ("not known", "not known")
    assert "commands" not in third


def test_a_version_of_nought_is_shown() -> None:
    assert _report.rows(["a"], {"a": {"verdicts": [{**SENSOR, "version": 0}]}})[0]["version"] == "0"


def test_the_table_has_columns_and_the_differences_below() -> None:
    bad = {**SENSOR, "verdict": "drifted", "differences": ["owner is root", "mode is 0777"]}
    text = _report.table(
        _report.rows(
            ["a-long-name", "b"],
            {"a-long-name": {"server_version": "7.0.15", "verdicts": [SENSOR]}, "b": {"verdicts": [bad]}},
        )
    )
    assert text.splitlines() == [
        "host         redis   module  version  path          sha256        verdict",
        "-----------  ------  ------  -------  ------------  ------------  -------",
        "a-long-name  7.0.15  sensor  20000    /m/sensor.so  eeeeeeeeeeee  loaded",
        "b            -       sensor  20000    /m/sensor.so  eeeeeeeeeeee  drifted",
        "b, module sensor: owner is root; mode is 0777",
    ]


def test_what_the_firewall_says_goes_into_each_row_of_its_host_and_below_the_table_once() -> None:
    results = {"a": {"verdicts": [SENSOR, {**SENSOR, "name": "other"}]}, "b": {"verdicts": [SENSOR]}}
    firewalls = {"a": {"failed": True, "msg": "nft is gone"}, "b": {"skipped": True}}
    rows = _report.rows(["a", "b"], results, None, firewalls)
    assert [row.get("firewall") for row in rows] == ["unknown: nft is gone", "unknown: nft is gone", None]
    assert _report.table(rows).splitlines()[5:] == ["a, firewall: unknown: nft is gone"]


def test_an_empty_table_has_its_head() -> None:
    assert _report.table([]).splitlines()[0].split() == list(_report.COLUMNS)


STATUS = {"result": "converged", "reason": "", "last_run": 1000, "last_success": 1000, "applied": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "the agent has not run"),
        ({**STATUS, "clock_is_wrong": False}, "converged 5 minutes ago, commit 0123456789ab"),
        (
            {**STATUS, "result": "refused", "reason": "why", "last_success": 0, "applied": "", "clock_is_wrong": True},
            "refused 5 minutes ago: why; last brought up to date never, commit none; its clock is wrong",
        ),
    ],
)
def test_what_an_agent_says_is_told(status: dict[str, Any], said: str) -> None:
    pulls = {"a": {"status": status, "now": 1300}}
    rows = _report.rows(["a", "b"], {}, None, None, pulls)
    assert rows[0]["pull"] == said
    assert "pull" not in rows[1]
    assert f"a, pull: {said}" in _report.table(rows)


class TestFirstLook:
    """What the operator reads before anything is done."""

    GOOD: ClassVar[dict[str, Any]] = {"as_wanted": True, "differences": [], "reached": "2026-11-28T03:12:09Z"}

    def bad(self, *differences: str) -> dict[str, Any]:
        return {"as_wanted": False, "differences": list(differences), "reached": "2026-11-01T00:00:00Z"}

    def test_all_as_wanted_since_one_time_or_several(self) -> None:
        later = {**self.GOOD, "reached": "2026-11-28T03:20:00Z"}
        assert _report.first_look({"a": self.GOOD, "b": self.GOOD}) == _report.Told(
            [], ["2 of 2 hosts are as wanted, confirmed 2026-11-28T03:12:09Z"]
        )
        assert _report.first_look({"a": later, "b": self.GOOD}).lines == [
            "2 of 2 hosts are as wanted, confirmed 2026-11-28T03:12:09Z to 2026-11-28T03:20:00Z"
        ]

    def test_each_of_the_others_with_its_differences_in_the_order_of_the_hosts(self) -> None:
        found = {"z": self.bad("one", "two", "three"), "ok": self.GOOD, "a": self.bad("no rollout has left a receipt")}
        assert _report.first_look(found) == _report.Told(
            ["z", "a"],
            [
                "1 of 3 hosts are as wanted, confirmed 2026-11-28T03:12:09Z",
                "z: one; two; three",
                "a: no rollout has left a receipt",
            ],
        )

    def test_not_more_than_three_of_them(self) -> None:
        names = [f"setting {number} is another" for number in range(200)]
        (_head, line) = _report.first_look({"a": self.bad(*names)}).lines
        assert line == ("a: setting 0 is another; setting 1 is another; setting 2 is another; and 197 more")

    def test_a_host_that_failed_or_was_not_reached(self) -> None:
        found = {"failed": {"failed": True, "msg": "no python"}, "gone": {}}
        assert _report.first_look(found) == _report.Told(
            ["failed", "gone"],
            [
                "0 of 2 hosts are as wanted",
                "failed: it failed or could not be reached",
                "gone: it failed or could not be reached",
            ],
        )

    def test_of_no_hosts(self) -> None:
        assert _report.first_look({}) == _report.Told([], ["0 of 0 hosts are as wanted"])
