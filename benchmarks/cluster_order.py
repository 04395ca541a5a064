#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of a cluster's module costs its clients: node after node, as a plain playbook does it, and in waves.

`make bench` runs it on six lab hosts, a cluster of 3 primaries and 3 replicas without persistence, as the molecule
scenario of that name makes it. The same clients write all the time in both: see molecule/shared/writers.py. It writes
the table into docs/benchmarks.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from bench_kit import ROOT, environment, inventory, taken_down, up, write_page

sys.path.insert(0, str(ROOT / "molecule" / "shared"))

from fleet_kit import Done, Fleet, Writers, sensorwindow

LAB = "bench-cluster"
SCENARIO = ROOT / "molecule" / "cluster"
NAIVE = "one after another, a plain playbook"
WAVES = "the rollout: replicas first, each primary hands over"


def good(done: Done) -> Done:
    """Return how a run went; end with its output where it failed."""
    if done.code != 0:
        sys.exit(done.output)
    return done


def measure(fleet: Fleet, playbook: str, *modules: dict[str, Any]) -> dict[str, Any]:
    """Run a playbook while clients write, and return what they found."""
    fleet.settle()
    fleet.empty()
    with Writers(fleet.told()) as writers:
        done = good(fleet.play(playbook, list(modules) or None))
        fleet.settle()
        return {**writers.end(), "seconds": done.seconds}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| order | acknowledged writes lost | longest gap in a shard | errors that clients saw | it took |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        gap = max(gap["probe"] for gap in one["gaps"].values())
        lines.append(
            f"| {name} | {one['lost']:,} of {one['acknowledged']:,} | {gap:.2f} s "
            f"| {sum(one['errors'].values())} | {one['seconds']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the page."""
    declared = yaml.safe_load((SCENARIO / "inventory.yml").read_text(encoding="utf-8"))["all"]["children"]["nodes"]
    suite = declared["vars"]["lab_suite"]
    os.environ.update(environment())
    with taken_down(LAB), tempfile.TemporaryDirectory() as folder:
        up(LAB, dict.fromkeys(declared["hosts"], suite))
        fleet = Fleet(SCENARIO, inventory(LAB), Path(folder))
        good(fleet.play(str(SCENARIO / "converge.yml")))
        found = {
            NAIVE: measure(fleet, str(ROOT / "benchmarks" / "cluster_order.yml")),
            WAVES: measure(fleet, "rollout", sensorwindow(1, args=["max-samples", "80000"])),
        }
    write_page(cluster_order=table(found))


if __name__ == "__main__":
    main()
