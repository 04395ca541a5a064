#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw docs/benchmarks-fleet.svg and docs/benchmarks-growth.svg from benchmarks/fleet.json.

It runs in an environment of its own, build/venv-bench. The same figures make the same file, byte by byte.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from figures import NAMES, OTHERS, Comparison, Figures, comparisons, steps, told
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OURS = "#0b6e4f"
COLOURS = {"plain": "#c1666b", "floor": "#8d99ae", "restart": "#d9a441"}
STYLE = {
    # No identifier is left to chance, and text stays text.
    "svg.hashsalt": "edgeops.redis_modules",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def save(figure: plt.Figure, name: str) -> None:
    """Write a plot; without a date, and on white, as a dark page would swallow its text."""
    path = DOCS / f"benchmarks-{name}.svg"
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    # Matplotlib leaves spaces at the ends of lines, which git's own check does not like.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def bars(figures: Figures) -> None:
    """Draw what stands beside the rollout as many times its own time, a group for each case."""
    groups: dict[str, list[Comparison]] = {}
    for one in comparisons(figures):
        where = one.case if one.part == "outage" else f"{one.case} hosts"
        groups.setdefault(f"{NAMES[one.part]}\n{where}", []).append(one)
    if not groups:
        return
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.7 * len(groups)), layout="constrained")
    place = 0.0
    ticks = []
    labelled: set[str] = set()
    for ones in groups.values():
        rows = [("the rollout", ones[0].ours_s, OURS)]
        rows += [(OTHERS[one.other].strip("`"), one.other_s, COLOURS[one.other]) for one in ones]
        ticks.append(place + (len(rows) - 1) / 2)
        for label, seconds, colour in rows:
            times = seconds / ones[0].ours_s
            axes.barh(place, times, 0.9, color=colour, label=None if label in labelled else label)
            axes.annotate(told(seconds), (times, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
            labelled.add(label)
            place += 1
        place += 0.8
    axes.set_yticks(ticks, list(groups))
    axes.invert_yaxis()
    axes.axvline(1, color=OURS, linewidth=0.8)
    axes.set_xlabel("times as long as the rollout (medians, in seconds at the bars)")
    axes.grid(axis="x", alpha=0.4)
    axes.set_axisbelow(True)
    axes.margins(x=0.08, y=0.02)
    figure.legend(loc="outside upper center", ncols=len(labelled), frameon=False)
    save(figure, "fleet")


def lines(figures: Figures) -> None:
    """Draw time and memory for each host over the number of hosts."""
    found = steps(figures)
    if not found:
        return
    hosts = [step.hosts for step in found]
    figure, both = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axes, name, values in (
        (
            both[0],
            "seconds of a pass for each host",
            [step.seconds / step.hosts for step in found],
        ),
        (both[1], "MB of memory for each host", [step.memory / 1e6 / step.hosts for step in found]),
    ):
        axes.plot(hosts, values, "o-", color=OURS)
        for x, y in zip(hosts, values, strict=True):
            axes.annotate(f"{y:.2f}", (x, y), (4, 6), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_xticks(hosts, [str(number) for number in hosts])
        axes.minorticks_off()
        axes.set_ylim(0, max(values) * 1.2)
        axes.set_xlabel("hosts")
        axes.set_ylabel(name)
        axes.grid(alpha=0.4)
    save(figure, "growth")


def main() -> None:
    """Draw what was measured."""
    figures: Figures = json.loads((ROOT / "benchmarks" / "fleet.json").read_text(encoding="utf-8"))
    with mpl.rc_context(STYLE):
        bars(figures)
        lines(figures)


if __name__ == "__main__":
    main()
