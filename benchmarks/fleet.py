#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rollout costs over a fleet, beside what a user would do instead, in one run on the same lab hosts.

`make bench` runs all parts; `--only nochange,outage` some of them. A third each of the hosts is Debian 11, 12 and 13.

- first, upgrade: the first rollout of the example module, and one of a new version, beside plain.yml; each pair on
  hosts that were just made, in turns who begins;
- nochange: a pass that changes nothing, beside plain.yml and beside floor.yml, in turns on the same hosts. The hosts
  are brought to where both the rollout and plain.yml find nothing to do, and each measured pass has to say so;
- settings: the same pass and floor.yml with each setting of examples/ansible.cfg taken away, and what facts cost;
- far: the settings again, with hosts to which it is a tenth of a second there and back;
- outage: for how long a client that asks each millisecond has no answer while its server's module is upgraded,
  beside `systemctl restart`;
- growth: a pass that changes nothing over 3, 9, 27 and 81 hosts, and what the controller needs of memory for it.

Each part's rounds go to benchmarks/fleet.json as soon as it is done; from there come the tables in docs/benchmarks.md
and the plots beside it, which `--only none` makes anew without measuring anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench_kit import (
    ROOT,
    Host,
    Played,
    Running,
    down,
    end_connections,
    environment,
    hosts_of,
    inventory,
    on_all,
    run,
    sockets_of,
    taken_down,
    up,
    write_page,
)
from figures import Case, Figures, missed, tables

LAB = "bench-fleet"
FOLDER = ROOT / "build" / "bench"
FIGURES = ROOT / "benchmarks" / "fleet.json"
HEADER = ROOT / "build" / "headers" / "6.0.16" / "redismodule.h"
"""The oldest server's: what is built with it loads on all of them. Both the rollout and plain.yml are given it."""

EXAMPLE = ROOT / "examples" / "sensorwindow"
VERSION = 20000
SUITES = ("bullseye", "bookworm", "trixie")
SIZES = (3, 9, 27, 81)
COMPARED = {3: 5, 27: 3}
"""Over how many hosts a pass that changes nothing is compared, and in how many pairs: a plain one over 27 is long."""

FLEET = 27
KEYS = 20_000
PLAYBOOKS = {
    "ours": "edgeops.redis_modules.rollout",
    "plain": str(ROOT / "benchmarks" / "plain.yml"),
    "floor": str(ROOT / "benchmarks" / "floor.yml"),
    "facts": str(ROOT / "benchmarks" / "facts.yml"),
}
PLACED = "/var/lib/redis/modules/sensorwindow.so"
BUILT_BY_PLAIN = "/usr/local/src/sensorwindow/sensorwindow.so"
LOOK_S = 0.1
"""How often the controller's memory is looked at."""

SETTINGS: dict[str, dict[str, str]] = {
    "as in examples/ansible.cfg": {},
    "`pipelining = false`": {"ANSIBLE_PIPELINING": "false"},
    "no ControlPersist": {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"},
    "no connection left from the run before": {},
    "`forks = 5`": {"ANSIBLE_FORKS": "5"},
    "no `interpreter_python`": {},
}
COLD = "no connection left from the run before"
SEARCHED = "no `interpreter_python`"
FACTS: dict[str, list[str]] = {
    "none": [],
    "`!all,!min,distribution,pkg_mgr`, as the other playbooks read": ["!all", "!min", "distribution", "pkg_mgr"],
    "all, as without a word": ["all"],
}
FAR = 9
AWAY_S = 0.05
"""How long it is to a far host, one way."""

FAR_SOCKETS = FOLDER / "far"
"""Connections to hosts that are far, as those that are not must not take their place."""


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def need(condition: object, what: str) -> None:
    """End where something is not as it has to be."""
    if not condition:
        sys.exit(what)


# ---------------------------------------------------------------- the fleet


class Fleet:
    """Lab hosts, and what is to run on them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.names: list[str] = []
        self.version = VERSION
        self.more: dict[str, Any] = {}
        """Variables of the rollout for one part."""

        self.plain_ran = False
        self.sources = FOLDER / "sensorwindow"
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.next_version()

    def grow(self, size: int) -> list[str]:
        """Have at least so many hosts up, as far as more than that were not forbidden; return their names."""
        size = min(size, self.most)
        if size > len(self.names):
            say(f"{size} hosts come up")
            names = [f"h{number}" for number in range(1, size + 1)]
            up(LAB, {name: SUITES[number % len(SUITES)] for number, name in enumerate(names)})
            self.names, self.plain_ran = names, False
        return self.names[:size]

    def fresh(self, size: int) -> list[str]:
        """Have so many hosts that were just made, and no others."""
        down(LAB)
        self.names = []
        return self.grow(size)

    def hosts(self, names: Sequence[str]) -> list[Host]:
        """Return those hosts."""
        return [host for host in hosts_of(LAB) if host.name in names]

    def next_version(self) -> None:
        """Change the module's sources: it reports another version from then on."""
        self.version += 1
        shutil.rmtree(self.sources, ignore_errors=True)
        shutil.copytree(EXAMPLE, self.sources, ignore=shutil.ignore_patterns("*.o", "*.so"))
        path = self.sources / "sensorwindow.c"
        text, times = re.subn(
            rf"^(#define MODULE_VERSION) {VERSION}$",
            rf"\1 {self.version}",
            path.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        need(times == 1, f"{path} has {times} lines that say version {VERSION}")
        path.write_text(text, encoding="utf-8")

    def variables(self) -> Path:
        """Write what the playbooks are given, and return its path."""
        entry = {
            "name": "sensorwindow",
            "src": str(self.sources),
            "sources": ["sensorwindow.c", "window.c"],
            "libraries": ["m", "pthread"],
            "args": ["retention-ms", "86400000"],
            "version": self.version,
        }
        told = {
            "redis_modules": [entry],
            "redis_toolchain_header": str(HEADER),
            "redis_toolchain_header_sha256": hashlib.sha256(HEADER.read_bytes()).hexdigest(),
            "redis_server_io_threads": 2,
            "plain_source": str(self.sources),
            "plain_header": str(HEADER),
            "plain_version": self.version,
            "plain_io_threads": 2,
            **self.more,
        }
        path = FOLDER / "variables.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        return path

    def start(self, who: str, names: Sequence[str], *more: str, **settings: str) -> Running:
        """Start a playbook on some hosts."""
        if who == "plain":
            self.plain_ran = True
        limit = FOLDER / "limit"
        limit.write_text("\n".join(names), encoding="utf-8")
        return Running(
            "ansible-playbook",
            PLAYBOOKS[who],
            f"--inventory={inventory(LAB)}",
            f"--limit=@{limit}",
            f"--extra-vars=@{self.variables()}",
            *more,
            env=environment(**settings),
        )

    def play(self, who: str, names: Sequence[str], *more: str, **settings: str) -> Played:
        """Run a playbook on some hosts."""
        done = self.start(who, names, *more, **settings).end()
        say(f"{who}, {len(names)} hosts: {done.seconds:.2f} s, {done.changed} changed")
        return done

    def same(self, who: str, names: Sequence[str], *more: str, **settings: str) -> float:
        """Run a playbook that has nothing to change, and return its seconds; end where it changed something."""
        done = self.play(who, names, *more, **settings)
        need(not done.changed, f"{who} should have had nothing to do:\n{done.output}")
        return done.seconds

    def converge(self, names: Sequence[str]) -> None:
        """Roll out until there is nothing to do."""
        for _ in range(3):
            if self.play("ours", names).changed == 0:
                return
        sys.exit("the rollout still finds something to do the third time")

    def agree(self, names: Sequence[str]) -> None:
        """Bring hosts to where both the rollout and plain.yml find nothing to do.

        They write the same lines. The compilers' output differs, so plain.yml gets the rollout's.
        """
        if not self.plain_ran:
            self.play("plain", names)
        for _ in range(3):
            self.converge(names)
            on_all(self.hosts(names), f"cp {PLACED} {BUILT_BY_PLAIN}")
            if self.play("plain", names).changed == 0:
                return
        sys.exit("the rollout and the plain playbook do not agree on the hosts")

    def confirm(self, names: Sequence[str]) -> None:
        """End where a server does not run the present version."""
        for name, said in on_all(self.hosts(names), "redis-cli MODULE LIST").items():
            found = re.search(r"^sensorwindow\nver\n(\d+)$", said, re.MULTILINE)
            need(
                found and int(found[1]) == self.version,
                f"{name} should run version {self.version} of the module:\n{said}",
            )


# ---------------------------------------------------------------- parts


def in_turns(number: int, *what: str) -> tuple[str, ...]:
    """Return the same in another order for each round, so that each comes first as often as any other."""
    first = number % len(what)
    return what[first:] + what[:first]


def change_all(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure the first rollout and an upgrade, beside the plain playbook."""
    first: Case = {"ours": [], "plain": []}
    upgrade: Case = {"ours": [], "plain": []}
    size = min(FLEET, fleet.most)
    for number in range(pairs or 2):
        for who in in_turns(number, "ours", "plain"):
            names = fleet.fresh(size)
            for rounds in (first, upgrade):
                fleet.next_version()
                rounds[who].append(fleet.play(who, names).seconds)
                fleet.confirm(names)
    return {"first": {str(size): first}, "upgrade": {str(size): upgrade}}


def change_nothing(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure a pass that changes nothing, beside the plain playbook and one command."""
    sizes = {min(size, fleet.most): usual for size, usual in COMPARED.items()}
    names = fleet.grow(max(sizes))
    fleet.agree(names)
    found: dict[str, Case] = {}
    for size, usual in sizes.items():
        rounds: Case = {"ours": [], "plain": [], "floor": []}
        for number in range(pairs or usual):
            for who in in_turns(number, *rounds):
                rounds[who].append(fleet.same(who, names[:size]))
        found[str(size)] = rounds
    return {"nochange": found}


def rounds_of_settings(
    fleet: Fleet, names: Sequence[str], pairs: int, variables: dict[str, str], sockets: Path
) -> dict[str, Case]:
    """Measure a pass that changes nothing, and one command, with each setting taken away."""
    found: dict[str, Case] = {name: {"ours": [], "floor": []} for name in SETTINGS}
    for number in range(pairs):
        for name in in_turns(number, *found):
            searched = {"ansible_python_interpreter": "auto_silent"} if name == SEARCHED else {}
            say(name)
            for who in ("ours", "floor"):
                if name == COLD:
                    end_connections(sockets)
                more = f"--extra-vars={json.dumps({**variables, **searched})}"
                found[name][who].append(fleet.same(who, names, more, **SETTINGS[name]))
    return found


def change_settings(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure what each setting is worth, and what facts cost."""
    names = fleet.grow(FLEET)
    fleet.converge(names)
    found = rounds_of_settings(fleet, names, pairs or 2, {}, sockets_of(LAB))
    facts: dict[str, Case] = {name: {"seconds": []} for name in FACTS}
    for number in range(pairs or 2):
        for name in in_turns(number, *facts):
            say(f"facts: {name}")
            more = [f"--extra-vars={json.dumps({'facts_subset': FACTS[name]})}"]
            facts[name]["seconds"].append(fleet.same("facts", names, *more))
    return {"settings": found, "facts": facts}


def change_settings_far(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure what each setting is worth where it is far to the hosts."""
    names = fleet.grow(FAR)[:FAR]
    fleet.converge(names)
    FAR_SOCKETS.mkdir(exist_ok=True)
    relay = f"{sys.executable} {ROOT / 'benchmarks' / 'far.py'} %h %p {AWAY_S}"
    variables = {"ansible_ssh_extra_args": f"-o ProxyCommand='{relay}'", "ansible_control_path_dir": str(FAR_SOCKETS)}
    try:
        # The first run makes the connections.
        fleet.same("ours", names, f"--extra-vars={json.dumps(variables)}")
        return {"far": rounds_of_settings(fleet, names, pairs or 3, variables, FAR_SOCKETS)}
    finally:
        end_connections(FAR_SOCKETS)


def away(hosts: Sequence[Host], what: Callable[[], object]) -> dict[str, float]:
    """Do something, and return for how long each server had no answer for a client meanwhile, in seconds."""
    askers = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "asker.py"), host.address, "6379"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for host in hosts
    ]
    try:
        for asker in askers:
            need(asker.stdout is not None and asker.stdout.readline() == "ready\n", "a client had no answer")
        what()
        found = {}
        for host, asker in zip(hosts, askers, strict=True):
            output = asker.communicate(timeout=10)[0]
            need(output, f"the client of {host.name} ended too early")
            told = json.loads(output)
            say(f"{host.name}: {told['answers']} answers, and none for {told['gap']:.3f} s")
            found[host.name] = float(told["gap"])
        return found
    finally:
        for asker in askers:
            asker.kill()
            asker.wait()


def change_one(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure for how long a server is away while its module is upgraded, beside a restart."""
    names = fleet.grow(len(SUITES))[: len(SUITES)]
    hosts = fleet.hosts(names)
    fleet.more = {"redis_server_bind": ["0.0.0.0"], "redis_server_protected_mode": False}  # noqa: S104 -- in the lab
    fleet.converge(names)
    on_all(hosts, f"for i in $(seq {KEYS}); do echo SENSORWINDOW.ADD key:$i 1000 $i; done | redis-cli >/dev/null")
    found: dict[str, Case] = {suite: {"ours": [], "restart": []} for suite in SUITES[: len(names)]}

    def note(what: str, gaps: dict[str, float]) -> None:
        for suite, name in zip(found, names, strict=True):
            if name in gaps:
                found[suite][what].append(gaps[name])

    def upgrade() -> None:
        fleet.next_version()
        need(fleet.play("ours", names).changed, "the upgrade changed nothing")

    for number in range(pairs or 5):
        for what in in_turns(number, "ours", "restart"):
            if what == "ours":
                note(what, away(hosts, upgrade))
                continue
            for host in hosts:
                host.sh("systemctl reset-failed redis-server")
                note(what, away([host], partial(host.sh, "systemctl restart redis-server")))
    fleet.more = {}
    return {"outage": found}


def memory(root: int) -> int:
    """Return the bytes that a process and all that descend from it have in memory; what they share is counted once.

    By parents, as each worker of ansible-core makes a session of its own.
    """
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it ended meanwhile
            # After the name in brackets: state, parent.
            parents[int(path.parent.name)] = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    total = 0
    for pid in parents:
        above = pid
        while above not in (root, 0):
            above = parents.get(above, 0)
        if above == root:
            with suppress(OSError):
                told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
                found = re.search(r"^Pss: +(\d+) kB", told, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
    return total


def most_memory(running: Running) -> int:
    """Wait for a run, and return what it had in memory at most, with all processes that it started."""
    found = [0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            found.append(memory(running.process.pid))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        running.end()
    finally:
        over.set()
        watch.join()
    return max(found)


def grow(fleet: Fleet, pairs: int | None) -> Figures:
    """Measure a pass that changes nothing over ever more hosts, and the controller's memory in passes of their own."""
    found: dict[str, Case] = {}
    for size in SIZES:
        if size > fleet.most:
            break
        names = fleet.grow(size)
        fleet.converge(names)
        rounds: Case = {"seconds": [], "memory": []}
        for _ in range(pairs or 2):
            rounds["seconds"].append(fleet.same("ours", names))
            rounds["memory"].append(most_memory(fleet.start("ours", names)))
            say(f"memory: {rounds['memory'][-1] / 1e6:.0f} MB")
        found[str(size)] = rounds
    return {"growth": found}


PARTS: dict[str, Callable[[Fleet, int | None], Figures]] = {
    "first": change_all,
    "upgrade": change_all,
    "nochange": change_nothing,
    "settings": change_settings,
    "far": change_settings_far,
    "outage": change_one,
    "growth": grow,
}
"""What measures each part, in the order in which hosts are used best."""


def measure(wanted: Sequence[str], pairs: int | None, most: int, keep: Callable[[Figures], None]) -> None:
    """Measure the wanted parts, and keep what each found."""
    run(sys.executable, ROOT / "tests" / "example" / "fetch_headers.py")
    with taken_down(LAB):
        down(LAB)  # what a run that was killed left
        fleet = Fleet(most)
        for action in dict.fromkeys(action for part, action in PARTS.items() if part in wanted):
            began = time.monotonic()
            found = action(fleet, pairs)
            keep(found)
            say(f"{', '.join(found)}: done in {time.monotonic() - began:.0f} s")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help=f"of {','.join(PARTS)}, or none")
    parser.add_argument("--pairs", type=int, help="how many, instead of each part's own number")
    parser.add_argument("--most", type=int, default=max(SIZES), metavar="HOSTS", help="with no more hosts than these")
    parser.add_argument("--no-page", action="store_true", help="print the tables, and write nothing into the checkout")
    told = parser.parse_args()
    told.only = [] if told.only == "none" else told.only.split(",")
    if not set(told.only) <= set(PARTS):
        parser.error(f"--only: there are the parts {', '.join(PARTS)}")
    return told


def main() -> None:
    """Measure, and write the page."""
    told = arguments()
    figures: Figures = {}
    if FIGURES.exists() and not told.no_page:
        figures = json.loads(FIGURES.read_text(encoding="utf-8"))

    def keep(found: Figures) -> None:
        figures.update(found)
        if not told.no_page:
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    began = time.monotonic()
    if told.only:
        measure(told.only, told.pairs, told.most, keep)
        say(f"all in {time.monotonic() - began:.0f} s")
    if told.no_page:
        print("\n\n".join(tables(figures).values()))
    elif figures:
        write_page(**tables(figures))
        run(ROOT / "build" / "venv-bench" / "bin" / "python", ROOT / "benchmarks" / "plot.py")
    for key in missed(figures):
        say(f"missed: {key}")


if __name__ == "__main__":
    main()
