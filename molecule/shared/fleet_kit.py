# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of replicated fleets share: runs of playbooks, writers beside them, and a watch over who is what.

None of it is this collection's own code. Who is primary is always asked of the servers, never read from an inventory.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNIT = "redis-server.service"
RELEASES = {1: 10000, 2: 20000}
LONGEST = 600.0
"""Seconds that one run of ansible-playbook may take. A busy machine needs ten times as long as one at rest."""

POLL_S = 0.03
"""How often the watch asks each server."""


def sensorwindow(release: int, **more: Any) -> dict[str, Any]:
    """Return an entry of redis_modules for a release of the example module."""
    return {
        "name": "sensorwindow",
        "src": str(ROOT / "examples" / "sensorwindow"),
        "sources": ["sensorwindow.c", "window.c"],
        "libraries": ["m", "pthread"],
        "defines": [f"SENSORWINDOW_RELEASE={release}"],
        "version": RELEASES[release],
        **more,
    }


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class State(NamedTuple):
    """What a server says of itself; all empty where it does not answer, or is loading."""

    start: str = ""
    """The run_id: another one after each start."""

    role: str = ""
    primary: str = ""
    """The address of the primary that a replica follows."""

    synced: bool = False
    """A replica's link to its primary is up; always so for a primary."""


@dataclass(frozen=True)
class Node:
    """A host of the lab with its server."""

    name: str
    address: str
    password: str
    ssh: tuple[str, ...]

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell script as root; return its standard output."""
        done = subprocess.run(
            [*self.ssh, f"root@{self.address}", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{self.name}: {script}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def client(self, timeout: float = 5.0) -> Any:
        """Return a client of this server that tries nothing twice: a retry would hide that the server was away."""
        return redis.Redis(
            self.address,
            password=self.password,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )

    def state(self, client: Any = None) -> State:
        """Ask the server."""
        try:
            told = (client or self.client()).info()
        except (redis.RedisError, OSError):
            return State()
        if told["loading"]:
            return State()
        if told["role"] == "master":
            return State(told["run_id"], "primary", "", synced=True)
        up = told["master_link_status"] == "up"
        return State(told["run_id"], "replica", told["master_host"], synced=up)

    def versions(self) -> dict[str, int]:
        """Return what MODULE LIST reports, without Redis 8's built-in vectorset."""
        client = self.client()
        client.response_callbacks.pop("MODULE LIST", None)
        found = {}
        for fields in client.execute_command("MODULE LIST"):
            pairs = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
            named = {str(k, "utf-8") if isinstance(k, bytes) else k: value for k, value in pairs.items()}
            found[named["name"].decode()] = int(named["ver"])
        found.pop("vectorset", None)
        return found

    @property
    def pid(self) -> int:
        """The pid that systemd knows, 0 where it does not run."""
        return int(self.sh(f"systemctl show -p MainPID --value {UNIT}"))

    def away(self, since: float) -> list[tuple[float, float]]:
        """Return from when to when the server was away, in seconds since 1970, as its log has it to the millisecond.

        The watch can miss a start: on a machine at rest it takes less than POLL_S.
        """
        windows = []
        begin = None
        for line in self.sh("cat /var/log/redis/redis-server.log").splitlines():
            found = re.match(r"\d+:\w (\d+ \w+ \d+ [\d:]+)\.(\d+) . (.*)", line)
            if not found:
                continue
            moment = datetime.strptime(f"{found[1]} +0000", "%d %b %Y %H:%M:%S %z").timestamp() + int(found[2]) / 1000
            if "User requested shutdown" in found[3]:
                begin = moment
            elif "Ready to accept connections" in found[3] and begin and begin >= since:
                windows.append((begin, moment))
                begin = None
        return windows

    def keep_down(self) -> None:
        """End the server by its recorded pid, and let nothing start it again."""
        self.sh(f"pid=$(systemctl show -p MainPID --value {UNIT}); systemctl mask --runtime {UNIT}; kill -9 $pid")

    def mend(self) -> None:
        """Undo it."""
        self.sh(f"systemctl unmask --runtime {UNIT}; systemctl reset-failed {UNIT}; systemctl start {UNIT}")


class Change(NamedTuple):
    """One server's state was another from I(at) on."""

    at: float
    node: str
    before: State
    after: State


class Watch:
    """Asks all servers all the time, and keeps each change of what they say. A context manager."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.first = {node.name: node.state() for node in nodes}
        self.now = dict(self.first)
        self.changes: list[Change] = []
        self.worst: dict[str, int] = {}
        """By shard (the names of its copies): how many did not answer at the same time, at most."""
        self.shards = shards_of(nodes, self.first)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(node,), daemon=True) for node in nodes]

    def __enter__(self) -> Watch:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_why: object) -> None:
        """End."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self, node: Node) -> None:
        client = node.client(1.0)
        while not self._over.wait(POLL_S):
            found = node.state(client)
            if not found.start:
                # Sentinel ends the connections of a server whose role it changes; one that is away refuses the next.
                found = node.state(client)
            with self._lock:
                before = self.now[node.name]
                if found == before:
                    continue
                self.now[node.name] = found
                self.changes.append(Change(time.monotonic(), node.name, before, found))
                for shard in self.shards:
                    down = sum(not self.now[name].start for name in shard)
                    key = " ".join(shard)
                    self.worst[key] = max(self.worst.get(key, 0), down)

    def started_again(self) -> list[str]:
        """Return the servers that run another process than at first, in the order in which they went."""
        names = []
        for change in list(self.changes):
            if change.after.start not in {"", self.first[change.node].start} and change.node not in names:
                names.append(change.node)
        return names

    def went_down_as(self, node: str) -> list[str]:
        """Return the role that a server had each time that it went away or was found to be another process."""
        roles = []
        for change in self.changes:
            if change.node == node and change.before.start and change.after.start != change.before.start:
                roles.append(change.before.role)
        return roles

    def told(self) -> str:
        """Return all changes as text, for the message of a failed test."""
        begin = self.changes[0].at if self.changes else 0.0
        return "\n".join(f"{c.at - begin:8.3f} {c.node}: {tuple(c.before)} -> {tuple(c.after)}" for c in self.changes)


def shards_of(nodes: list[Node], states: dict[str, State]) -> list[tuple[str, ...]]:
    """Return the names of each shard's copies, its primary first."""
    names = {node.address: node.name for node in nodes}
    found = {node.name: [node.name] for node in nodes if states[node.name].role == "primary"}
    for node in nodes:
        if states[node.name].role == "replica":
            found[names[states[node.name].primary]].append(node.name)
    return [tuple(shard) for shard in found.values()]


class Writers:
    """The process in writers.py. A context manager: it ends with the block, whatever becomes of it."""

    def __init__(self, fleet: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "writers.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.began = self.tell(fleet)

    def __enter__(self) -> Writers:
        """Begin."""
        return self

    def __exit__(self, *_why: object) -> None:
        """End."""
        with suppress(OSError):
            self.process.communicate(timeout=10)
        self.process.kill()
        self.process.wait()

    def tell(self, word: Any) -> dict[str, Any]:
        """Send one thing to do, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(word) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the writers ended, see above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> dict[str, Any]:
        """Stop them, and return what they went through and what was lost."""
        return {**self.tell("stop"), **self.tell("check")}


@dataclass
class Done:
    """How a run of ansible-playbook went."""

    code: int
    output: str
    seconds: float

    def changed(self) -> dict[str, int]:
        """Return how much each host says that it changed."""
        return {
            host: int(count)
            for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.MULTILINE)
        }


def longest_gap(found: dict[str, Any]) -> float:
    """Return how long a shard took no write at most, in seconds, without what the busy machine made of it."""
    return max(gap["probe"] - gap["busy"] for gap in found["gaps"].values())


class Fleet:
    """The hosts of a scenario, and the playbooks that are run on them as a user does."""

    def __init__(self, scenario: Path, lab: Path, folder: Path) -> None:
        declared = yaml.safe_load((scenario / "inventory.yml").read_text(encoding="utf-8"))["all"]["children"]["nodes"]
        made = yaml.safe_load(lab.read_text(encoding="utf-8"))["all"]
        self.inventories = [scenario / "inventory.yml", lab]
        self.folder = folder
        self.variables: dict[str, Any] = declared["vars"]
        ssh = ("ssh", "-i", made["vars"]["ansible_ssh_private_key_file"])
        options = tuple(shlex.split(made["vars"]["ansible_ssh_common_args"]))
        self.nodes = [
            Node(name, made["hosts"][name]["ansible_host"], self.variables["redis_server_requirepass"], ssh + options)
            for name in declared["hosts"]
        ]
        self.by_name = {node.name: node for node in self.nodes}

    def told(self) -> dict[str, Any]:
        """Return what writers have to know."""
        name = self.variables.get("sentinel_primary", "")
        return {
            "nodes": [[node.address, 6379] for node in self.nodes],
            "sentinels": [[node.address, 26379] for node in self.nodes] if name else [],
            "name": name,
            "password": self.variables["redis_server_requirepass"],
        }

    def states(self) -> dict[str, State]:
        """Ask all servers."""
        return {node.name: node.state() for node in self.nodes}

    def shards(self) -> list[tuple[str, ...]]:
        """Return the names of each shard's copies, its primary first."""
        return shards_of(self.nodes, self.states())

    def whole(self) -> bool:
        """Whether all servers answer, all replicas are in sync, and each shard has as many copies as any other."""
        states = self.states()
        if not all(state.synced for state in states.values()):
            return False
        primaries = {node.address for node in self.nodes if states[node.name].role == "primary"}
        if not all(state.role == "primary" or state.primary in primaries for state in states.values()):
            return False  # for a moment of a failover, a replica may follow another one
        shards = shards_of(self.nodes, states)
        return len({len(shard) for shard in shards}) == 1 and len(shards[0]) > 1

    def settle(self) -> None:
        """Wait until it is whole."""
        until(self.whole, "all copies are in sync", 60)

    def empty(self) -> None:
        """Delete all that earlier tests wrote: it would make each start longer."""
        for shard in self.shards():
            self.by_name[shard[0]].client().flushall()

    def away_together(self, since: float) -> list[str]:
        """Return the copies of one shard that were away at the same time; none of the starts may be missing."""
        found = []
        for shard in self.shards():
            windows = sorted((*window, name) for name in shard for window in self.by_name[name].away(since))
            assert {name for _begin, _end, name in windows} == set(shard), windows
            found += [f"{one} and {two}" for one, two in pairwise(windows) if two[0] < one[1]]
        return found

    def start(
        self, playbook: str, modules: list[dict[str, Any]] | None = None, **variables: Any
    ) -> subprocess.Popen[str]:
        """Start a playbook, the collection's own or one by its path."""
        if modules is not None:
            variables["redis_modules"] = modules
        own = self.folder / "variables.json"
        own.write_text(json.dumps(variables), encoding="utf-8")
        return subprocess.Popen(
            [
                "ansible-playbook",
                playbook if "/" in playbook else f"edgeops.redis_modules.{playbook}",
                *(f"--inventory={path}" for path in self.inventories),
                f"--extra-vars=@{own}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_NOCOLOR": "1",
                "NO_COLOR": "1",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            },
        )

    @staticmethod
    def finish(process: subprocess.Popen[str], began: float) -> Done:
        """Wait for a playbook to end; end it where that takes too long."""
        try:
            output, _nothing = process.communicate(timeout=LONGEST)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            print(process.communicate()[0])
            raise
        return Done(process.returncode, output, time.monotonic() - began)

    def play(self, playbook: str, modules: list[dict[str, Any]] | None = None, **variables: Any) -> Done:
        """Run a playbook to its end."""
        began = time.monotonic()
        return self.finish(self.start(playbook, modules, **variables), began)

    def play_and(
        self, meanwhile: Callable[[], object], playbook: str, modules: list[dict[str, Any]], **variables: Any
    ) -> Done:
        """Run a playbook, and do something meanwhile."""
        began = time.monotonic()
        process = self.start(playbook, modules, **variables)
        failed: list[BaseException] = []

        def act() -> None:
            try:
                meanwhile()
            except BaseException as error:  # noqa: BLE001 -- it is raised below, in the test's own thread
                failed.append(error)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        done = self.finish(process, began)
        thread.join(1.0)
        assert not failed, f"{failed[0]}\n{done.output}"
        assert not thread.is_alive(), f"it ended before what should have happened meanwhile:\n{done.output}"
        return done
