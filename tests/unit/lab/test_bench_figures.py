# SPDX-License-Identifier: GPL-3.0-or-later
"""From measured rounds to what stands on the page."""

from __future__ import annotations

import json
from pathlib import Path

import bench_kit
import figures
import pytest

ROOT = Path(__file__).resolve().parents[3]


def passes(ours: list[float], plain: list[float]) -> figures.Figures:
    """Return figures of nothing but a pass over 27 hosts."""
    return {"nochange": {"27": {"ours": ours, "plain": plain}}}


def only(found: figures.Figures) -> figures.Comparison:
    """Return the one comparison that there is."""
    (one,) = figures.comparisons(found)
    return one


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    # A busy moment hits both of a pair: the ratio of the medians would be 10 here.
    one = only(passes([2.0, 2.0, 20.0], [20.0, 26.0, 260.0]))
    assert one.ratio == 13.0
    assert (one.ours_s, one.other_s) == (2.0, 26.0)


def test_rounds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(figures.comparisons(passes([1.0, 1.0], [1.0])))


@pytest.mark.parametrize(("plain", "missed"), [(12.0, False), (11.9, True)])
def test_at_least_so_many_times_as_fast(plain: float, missed: bool) -> None:
    found = passes([1.0], [plain])
    assert only(found).missed is missed
    assert figures.missed(found) == (["nochange/27/plain"] if missed else [])


@pytest.mark.parametrize(("ours", "missed"), [(1.2, False), (1.21, True)])
def test_at_most_so_many_times_as_long(ours: float, missed: bool) -> None:
    found: figures.Figures = {"outage": {"trixie": {"ours": [ours], "restart": [1.0]}}}
    assert only(found).missed is missed
    assert ("**missed**" in figures.compared(found)) is missed


def test_without_a_goal_nothing_is_missed() -> None:
    found: figures.Figures = {"nochange": {"9": {"ours": [1.0], "plain": [1.0]}}}
    assert not only(found).missed
    assert "| none |" in figures.compared(found)


def test_a_missed_goal_never_goes_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    found = passes([1.0], [2.0])
    monkeypatch.setattr(figures, "REASONS", {})
    assert "**missed**; reason not given yet" in figures.compared(found)
    monkeypatch.setattr(figures, "REASONS", {"nochange/27/plain": "the moon was full"})
    assert "**missed**; the moon was full" in figures.compared(found)


def test_growth_is_for_each_host() -> None:
    found: figures.Figures = {
        "growth": {
            "81": {"seconds": [16.2], "memory": [162e6]},
            "9": {"seconds": [1.8, 1.7, 9.0], "memory": [45e6]},
            "27": {"seconds": [5.9], "memory": [100e6]},
        }
    }
    nine, twenty_seven, eighty_one = figures.steps(found)
    assert (nine.hosts, nine.seconds, nine.grown_s, nine.missed()) == (9, 1.8, None, [])
    assert twenty_seven.grown_s is not None
    # 0.22 s a host after 0.2 s is flat; a third more would not be.
    assert round(twenty_seven.grown_s, 3) == 1.093
    assert twenty_seven.missed() == []
    assert eighty_one.missed() == []
    found["growth"]["81"]["seconds"] = [23.6]
    assert figures.missed(found) == ["growth/81/seconds"]
    assert "seconds: reason not given yet" in figures.growth(found)


def test_settings_stand_beside_the_first() -> None:
    found: figures.Figures = {
        "settings": {"as it is": {"ours": [2.0], "floor": [1.0]}, "worse": {"ours": [3.0], "floor": [4.0]}},
        "facts": {"none": {"seconds": [0.5]}, "all": {"seconds": [5.0]}},
    }
    text = figures.settings(found)
    assert "| as it is | 2.00 s | 1.00 s |" in text
    assert "| worse | 3.00 s (1.50 times) | 4.00 s (4.00 times) |" in text
    assert "| all | 5.00 s (10.00 times) |" in text


def test_the_page_changes_between_its_marks_only() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert figures.between(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    for broken in ("", "<!-- x -->", "<!-- /x --> <!-- x -->"):
        with pytest.raises(ValueError, match="the page has no <!-- x -->"):
            figures.between(broken, "x", "new")


def test_a_recap_tells_the_changes_of_all_hosts() -> None:
    recap = (
        "h1                         : ok=38   changed=7    unreachable=0    failed=0\n"
        "h2                         : ok=31   changed=0    unreachable=0    failed=0\n"
    )
    assert bench_kit.Played(1.0, recap).changed == 7
    assert bench_kit.Played(1.0, "").changed is None


def test_the_page_has_the_figures_that_were_measured_and_the_reason_of_each_missed_goal() -> None:
    path = ROOT / "benchmarks" / "fleet.json"
    measured: figures.Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name, content in figures.tables(measured).items():
        assert figures.between(page, name, content) == page, f"make it anew: {figures.COMMAND} --only none"
    assert [key for key in figures.missed(measured) if key not in figures.REASONS] == []
