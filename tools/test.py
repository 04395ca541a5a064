#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every gate, go on past one that fails, and end with a table.

Static gates run two at a time, the ones on real hosts alone. Each gate's output is kept in
build/log/GATE.log; the end of it is shown where the gate fails. The exit status is 1 when any
failed. A lab of a gate (mol-…, rollout, example…) that was not up before is down at the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "log"
ON_HOSTS = ("example", "molecule", "rollout")
AT_ONCE = 2
LABS = re.compile(r"(mol-\S+|(rollout|example)\S*)\s")  # at the start of a line
LONGEST = 70 * 60  # seconds for one gate
TAIL = 60  # lines
ENOUGH = 10  # lines
LONG = 600  # characters of a line


@dataclass
class Outcome:
    """How a gate went."""

    gate: str
    passed: bool
    seconds: float
    notes: list[str] = field(default_factory=list)


class Runner:
    """Starts gates and can end them all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopping = False

    def run(self, gate: str) -> Outcome:
        """Run one gate to its end."""
        log = LOGS / f"{gate}.log"
        began = time.monotonic()
        with log.open("wb") as output:
            with self.lock:
                if self.stopping:
                    return Outcome(gate, passed=False, seconds=0, notes=["not started"])
                # A group of its own, so that all it starts can be ended with it.
                process = subprocess.Popen(
                    [ROOT / "tools" / "gate", gate],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.running.add(process)
            notes = []
            try:
                process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                notes.append(f"ended after {LONGEST} s")
                end(process)
            with self.lock:
                self.running.discard(process)
        seconds = time.monotonic() - began
        text = log.read_text(encoding="utf-8", errors="replace")
        notes += [line.removeprefix("NOT RUN: ") for line in text.splitlines() if line.startswith("NOT RUN: ")]
        outcome = Outcome(gate, process.returncode == 0, seconds, notes)
        with self.lock:
            tell(outcome, text)
        return outcome

    def stop(self, signum: int, _frame: FrameType | None) -> None:
        """End what runs; run() then returns everywhere."""
        self.stopping = True
        for process in list(self.running):
            end(process)
        print(f"\nstopped by signal {signum}", flush=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a gate and all that it started; it may take its lab down first."""
    for signum, patience in ((signal.SIGTERM, 60), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, signum)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return


def tell(outcome: Outcome, text: str) -> None:
    """Say how a gate went; where it failed, with the end of its output."""
    result = "ok" if outcome.passed else "FAILED"
    print(f"{outcome.gate:<10} {result:<7} {outcome.seconds:6.1f} s", flush=True)
    if not outcome.passed:
        lines = text.splitlines()[-TAIL:]
        print("\n".join(f"    | {line}" for line in lines), flush=True)
        print(f"    all of it: build/log/{outcome.gate}.log", flush=True)


def failures(log: Path) -> list[str]:
    """Return the lines of a gate's output that say what failed: as pytest names them, and why; else the last ones."""
    lines = [line[:LONG] for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    why = [line for line in lines if re.match(r"E\s+(\w+Error: .|assert .|fatal: )", line)]
    named = [line for line in lines if re.match(r"(FAILED|ERROR) (?!- RETRYING)", line)]
    return why[:ENOUGH] + named[-ENOUGH:] or lines[-ENOUGH:]


def labs() -> set[str]:
    """Name the labs of gates that are up."""
    script = ROOT / "lab" / "lab.py"
    if not script.exists():
        return set()
    listing = subprocess.run([script, "status"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return {match[1] for line in listing.stdout.splitlines() if (match := LABS.match(line))}


def main() -> int:
    """Run all; give the exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    listing = subprocess.run([ROOT / "tools" / "gate", "--list"], check=True, capture_output=True, text=True)
    gates = listing.stdout.split()
    runner = Runner()
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    before = labs()
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(runner.run, [gate for gate in gates if gate not in ON_HOSTS]))
        outcomes += [runner.run(gate) for gate in gates if gate in ON_HOSTS]
    finally:
        for lab in sorted(labs() - before):
            print(f"taking lab '{lab}' down, a gate left it", flush=True)
            subprocess.run([ROOT / "lab" / "lab.py", "down", "--lab", lab], stdin=subprocess.DEVNULL, check=False)

    print(f"\n{'gate':<10} {'result':<7} {'seconds':>8}")
    for outcome in outcomes:
        print(f"{outcome.gate:<10} {'ok' if outcome.passed else 'FAILED':<7} {outcome.seconds:8.1f}")
    for outcome in outcomes:
        if not outcome.passed:
            # Once more at the very end: of a long output, often only that is kept.
            for line in failures(LOGS / f"{outcome.gate}.log"):
                print(f"{outcome.gate}: {line}")
    for outcome in outcomes:
        for note in outcome.notes:
            print(f"not run in {outcome.gate}: {note}")
    print(f"all in {time.monotonic() - began:.0f} s")
    failed = [outcome.gate for outcome in outcomes if not outcome.passed]
    print(
        f"{len(outcomes) - len(failed)} passed, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}",
        flush=True,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
