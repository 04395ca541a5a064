# SPDX-License-Identifier: GPL-3.0-or-later
"""From measured rounds to tables: medians, ratios, goals and what is said where one was missed.

Nothing here measures, or reads or writes a file. The figures are those of benchmarks/fleet.json: by part (`nochange`),
case (`27`, a number of hosts) and what was measured (`ours`, `plain`), the rounds in their order. The rounds of a case
were measured in turns, so the first of `ours` and the first of `plain` are a pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

Rounds = list[float]
Case = dict[str, Rounds]
Figures = dict[str, dict[str, Case]]

COMMAND = "build/venv/bin/python benchmarks/fleet.py"

NAMES = {
    "nochange": "a pass that changes nothing",
    "first": "the first rollout",
    "upgrade": "an upgrade of one module",
    "outage": "one server is away in its upgrade",
}
OTHERS = {"plain": "plain playbook", "floor": "one command", "restart": "`systemctl restart`"}

LEAST = {
    ("nochange", "3", "plain"): 6.0,
    ("nochange", "27", "plain"): 12.0,
    ("first", "27", "plain"): 4.0,
    ("upgrade", "27", "plain"): 4.0,
}
"""How many times as fast as the other the rollout should be."""

MOST = {
    ("nochange", "3", "floor"): 1.5,
    ("nochange", "27", "floor"): 1.5,
    ("outage", "bullseye", "restart"): 1.2,
    ("outage", "bookworm", "restart"): 1.2,
    ("outage", "trixie", "restart"): 1.2,
}
"""How many times as long as the other the rollout may take."""

FLAT = 1.1
"""A figure for each host of a larger fleet is called flat up to this many times that of the smaller one."""

SHARED = (
    "two cores do the work of the controller and of all hosts, so each trip to all of them takes at least as long as "
    "one command does above; the rollout makes fewer than the plain playbook, but one of them starts a second server "
    "on each host, for the trial"
)
EDGE = (
    "most of a look is the start of Python, Ansible's own part and redis-py on each host, and two cores do the work of "
    "the controller and of all hosts"
)
REASONS: dict[str, str] = {
    "first/27/plain": SHARED,
    "upgrade/27/plain": SHARED,
    "nochange/27/floor": EDGE,
}
"""Why a goal was missed, by its key (`nochange/27/plain`, `growth/81/memory`), filled in by hand.

Without an entry the page says that the reason was not given yet, and a unit test fails.
"""

NOT_GIVEN = "reason not given yet"
NOT_YET = "Not measured yet."
PICTURES = {
    "fleet": "![Times beside the rollout's](benchmarks-fleet.svg)",
    "growth": "![Time and memory for each host](benchmarks-growth.svg)",
}
"""What is drawn of a table, once there is something to draw."""


# ---------------------------------------------------------------- comparisons


class Comparison(NamedTuple):
    """The rollout beside something else, over the rounds of one case."""

    part: str
    case: str
    other: str
    ours_s: float
    other_s: float
    ratios: list[float]
    """Of each pair: how many times as fast as the other, or where a goal is a limit, how many times as long."""

    goal: float | None
    limit: bool
    """The ratio may be at most the goal, else it should be at least that."""

    @property
    def key(self) -> str:
        """What the goal is called in REASONS."""
        return f"{self.part}/{self.case}/{self.other}"

    @property
    def ratio(self) -> float:
        """The median of the pairs."""
        return statistics.median(self.ratios)

    @property
    def missed(self) -> bool:
        """Whether it has a goal that it did not reach."""
        if self.goal is None:
            return False
        return self.ratio > self.goal if self.limit else self.ratio < self.goal


def compare(part: str, case: str, other: str, rounds: Case) -> Comparison:
    """Compare the rounds of `ours` with those of another, pair by pair."""
    key = (part, case, other)
    limit = other in {"floor", "restart"}
    pairs = list(zip(rounds["ours"], rounds[other], strict=True))
    ratios = [ours / theirs if limit else theirs / ours for ours, theirs in pairs]
    return Comparison(
        part,
        case,
        other,
        statistics.median(rounds["ours"]),
        statistics.median(rounds[other]),
        ratios,
        (MOST if limit else LEAST).get(key),
        limit,
    )


def comparisons(figures: Figures) -> Iterator[Comparison]:
    """Return all comparisons that the figures have, in the page's order."""
    for part in NAMES:
        for case, rounds in figures.get(part, {}).items():
            for other in OTHERS:
                if other in rounds:
                    yield compare(part, case, other, rounds)


def told(seconds: float) -> str:
    """Return seconds as the page tells them: about three digits."""
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def verdict(goal: str, key: str, *, missed: bool) -> str:
    """Return what the page says of a goal."""
    return f"{goal}: " + (f"**missed**; {REASONS.get(key, NOT_GIVEN)}" if missed else "met")


def compared(figures: Figures) -> str:
    """Return the table of comparisons in Markdown."""
    rows = []
    for one in comparisons(figures):
        unit = "times as long" if one.limit else "times as fast"
        count = f"{len(one.ratios)} pairs" if len(one.ratios) > 1 else "1 pair"
        spread = f"{min(one.ratios):.2f} to {max(one.ratios):.2f}, {count}"
        goal = "none"
        if one.goal is not None:
            goal = verdict(f"at {'most' if one.limit else 'least'} {one.goal:g}", one.key, missed=one.missed)
        where = f"1, {one.case}" if one.part == "outage" else one.case
        rows.append(
            f"| {NAMES[one.part]} | {where} | {told(one.ours_s)} | {OTHERS[one.other]} {told(one.other_s)} "
            f"| {one.ratio:.2f} {unit} ({spread}) | {goal} | `{one.part}` |"
        )
    if not rows:
        return NOT_YET
    head = ["| what | hosts | rollout | beside it | median of the pairs | goal | part |", "| --- " * 7 + "|"]
    return "\n".join([*head, *rows, "", f"Each line is made by `{COMMAND} --only PART`."])


# ---------------------------------------------------------------- growth


class Step(NamedTuple):
    """What a pass over a number of hosts costs the controller."""

    hosts: int
    seconds: float
    memory: float
    """Bytes."""

    grown_s: float | None
    """How many times the time for each host of the fleet that is one step smaller; None for the smallest."""

    grown_memory: float | None

    def missed(self) -> list[str]:
        """Return the keys of the goals that it missed."""
        grown = {"seconds": self.grown_s, "memory": self.grown_memory}
        return [f"growth/{self.hosts}/{what}" for what, times in grown.items() if times is not None and times > FLAT]


def steps(figures: Figures) -> list[Step]:
    """Return the sizes that were measured, the smallest first."""
    found: list[Step] = []
    for hosts in sorted(map(int, figures.get("growth", {}))):
        rounds = figures["growth"][str(hosts)]
        seconds, memory = statistics.median(rounds["seconds"]), statistics.median(rounds["memory"])
        grown_s = grown_memory = None
        if found:
            last = found[-1]
            grown_s = seconds / hosts / (last.seconds / last.hosts)
            grown_memory = memory / hosts / (last.memory / last.hosts)
        found.append(Step(hosts, seconds, memory, grown_s, grown_memory))
    return found


def growth(figures: Figures) -> str:
    """Return the table of growth in Markdown."""
    found = steps(figures)
    if not found:
        return NOT_YET
    lines = ["| hosts | a pass | for each host | memory | for each host | flat or falling |", "| --- " * 6 + "|"]
    for step in found:
        missed = step.missed()
        why = "; ".join(f"{key.rpartition('/')[2]}: {REASONS.get(key, NOT_GIVEN)}" for key in missed)
        goal = "" if step.grown_s is None else f"**missed**; {why}" if missed else "met"
        lines.append(
            f"| {step.hosts} | {told(step.seconds)} | {told(step.seconds / step.hosts)} | {step.memory / 1e6:.0f} MB "
            f"| {step.memory / 1e6 / step.hosts:.1f} MB | {goal} |"
        )
    return "\n".join([*lines, "", f"Made by `{COMMAND} --only growth`."])


def missed(figures: Figures) -> list[str]:
    """Return the keys of all goals that were missed."""
    return [one.key for one in comparisons(figures) if one.missed] + [
        key for step in steps(figures) for key in step.missed()
    ]


# ---------------------------------------------------------------- settings


def beside_first(cases: dict[str, Case], columns: dict[str, str], title: str) -> str:
    """Return a table in Markdown: the medians of each case, and how many times those of the first case they are."""
    lines = [f"| {title} | " + " | ".join(columns.values()) + " |", "| --- " * (1 + len(columns)) + "|"]
    first: dict[str, float] = {}
    for name, rounds in cases.items():
        cells = []
        for what in columns:
            seconds = statistics.median(rounds[what])
            times = f" ({seconds / first[what]:.2f} times)" if what in first else ""
            first.setdefault(what, seconds)
            cells.append(told(seconds) + times)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


SETTINGS_COLUMNS = {"ours": "a pass that changes nothing", "floor": "one command"}


def far(figures: Figures) -> str:
    """Return the table of settings where it is far to the hosts in Markdown."""
    found = figures.get("far", {})
    if not found:
        return NOT_YET
    return "\n".join([beside_first(found, SETTINGS_COLUMNS, "settings"), "", f"Made by `{COMMAND} --only far`."])


def settings(figures: Figures) -> str:
    """Return the tables of settings and of facts in Markdown."""
    found = figures.get("settings", {})
    if not found:
        return NOT_YET
    return "\n".join(
        [
            beside_first(found, SETTINGS_COLUMNS, "settings"),
            "",
            beside_first(figures.get("facts", {}), {"seconds": "a play that does nothing else"}, "facts"),
            "",
            f"Made by `{COMMAND} --only settings`.",
        ]
    )


# ---------------------------------------------------------------- the page


def between(text: str, name: str, content: str) -> str:
    """Return a page with something else between the marks of that name. Raises ValueError where it has none."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _mark, rest = text.partition(first)
    _old, mark, after = rest.partition(last)
    if not mark:
        raise ValueError(f"the page has no {first} with a {last} after it")
    return f"{before}{first}\n{content}\n{last}{after}"


def tables(figures: Figures) -> dict[str, str]:
    """Return all that stands on the page, by the names of its marks."""
    found = {"fleet": compared(figures), "growth": growth(figures), "settings": settings(figures), "far": far(figures)}
    return {
        name: f"{table}\n\n{PICTURES[name]}" if name in PICTURES and table != NOT_YET else table
        for name, table in found.items()
    }
