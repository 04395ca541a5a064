#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that write to a replicated fleet while it is changed, and count what it lost.

A process of its own, so that nothing of a test's work delays it. It reads what to do from its standard input, a line of
JSON each, and answers each with a line of JSON:

1. the fleet (see Fleet): it starts to write, and answers when every writer has had its first answer;
2. "stop": it writes no more, and answers with how often it was acknowledged, its errors, and the gaps of each shard
   (C(busy): how long of the probe's longest one the machine had no core to spare);
3. "check", as often as one likes: it asks the primaries for every acknowledged value, and all copies for all keys.

For each shard there are two writers, with redis-py's own clients for a cluster or for Sentinel: one adds samples to a
key of the example module, one sets plain keys. Each value is written until it is acknowledged, after a short pause each
time; an attempt without an answer may or may not be there. Besides, for each shard a probe asks for a write each
millisecond over a bare connection and goes where it is told to go, so that its gaps are the fleet's and not those of a
client's back-off.

All of it ends by itself after LONGEST seconds, or when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

LONGEST = 400.0
"""Seconds after which nothing writes any more, whatever becomes of the caller."""

PAUSE_S = 0.01
"""Between two writes of a writer, and after an error."""

PROBE_PAUSE_S = 0.001
LATE_S = 0.01
"""From when on the clock calls a millisecond's sleep late."""

ANSWER_S = 1.0
"""How long a client waits for an answer."""

SETTLE_S = 30.0
"""How long copies may take to come in step when nobody writes any more."""

Address = tuple[str, int]


class Fleet:
    """Where the servers are, and who they say is primary of what.

    I(told) has C(nodes) and C(sentinels), lists of [ADDRESS, PORT] each, C(name), what the Sentinels call the primary,
    and C(password). Without Sentinels it is a cluster.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.nodes: list[Address] = [(host, port) for host, port in told["nodes"]]
        self.sentinels: list[Address] = [(host, port) for host, port in told["sentinels"]]
        self.name: str = told["name"]
        self.password: str = told["password"]

    def client(self) -> Any:
        """Return a client as an application has it, that follows a change of roles but tries nothing twice."""
        options = {
            "password": self.password,
            "socket_timeout": ANSWER_S,
            "socket_connect_timeout": ANSWER_S,
            "retry": Retry(NoBackoff(), 0),
        }
        if not self.sentinels:
            return RedisCluster(startup_nodes=[ClusterNode(*node) for node in self.nodes], **options)
        watchers = Sentinel(self.sentinels, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
        return watchers.master_for(self.name, **options)

    def direct(self, node: Address) -> Any:
        """Return a client of one server."""
        return redis.Redis(*node, password=self.password, socket_timeout=10, single_connection_client=True)

    def shards(self) -> dict[str, tuple[Address, list[Address]]]:
        """Return each shard's primary and its replicas, by the shard's slots; the servers themselves are asked."""
        primaries: dict[str, Address] = {}
        replicas: dict[str, list[Address]] = {}
        for node in self.nodes:
            with suppress(redis.RedisError, OSError):
                client = self.direct(node)
                role = client.execute_command("ROLE")
                slots = self._slots(client) if not self.sentinels else "all"
                if role[0] == b"master" and slots:
                    if slots in primaries:
                        raise SystemExit(f"{primaries[slots]} and {node} both say that they are primary of {slots}")
                    primaries[slots] = node
                elif role[0] == b"slave":
                    replicas.setdefault(f"{role[1].decode()}:{role[2]}", []).append(node)
        return {slots: (node, replicas.get(f"{node[0]}:{node[1]}", [])) for slots, node in sorted(primaries.items())}

    @staticmethod
    def _slots(client: Any) -> str:
        lines = client.execute_command("CLUSTER NODES")
        text = lines if isinstance(lines, dict) else lines.decode()
        if isinstance(text, dict):
            mine = next(values for values in text.values() if "myself" in values["flags"])
            return " ".join("-".join(ends) for ends in mine["slots"])
        mine = next(line.split() for line in text.splitlines() if "myself" in line)
        return " ".join(mine[8:])

    def tag(self, shard: str) -> str:
        """Return a hash tag whose keys belong to a shard."""
        if shard == "all":
            return "all"
        first, last = (int(number) for number in (shard.split(maxsplit=1)[0].split("-") * 2)[:2])
        return next(tag for tag in map(str, range(1_000_000)) if first <= key_slot(tag.encode()) <= last)


class Gap:
    """The longest time without an answer."""

    def __init__(self) -> None:
        self.last = self.longest = 0.0
        self.before = 0.0
        """When the longest one began."""

    def answered(self) -> None:
        """Note an answer."""
        now = time.monotonic()
        if self.last and now - self.last > self.longest:
            self.longest, self.before = now - self.last, self.last
        self.last = now

    def close(self) -> None:
        """A shard that does not answer at the end has a gap that lasts until now."""
        self.answered()


class Clock(threading.Thread):
    """Sleeps for a millisecond at a time, and notes when it woke up late: the machine was busy with other things.

    It runs with the servers' priority, not with that of the writers: as long as it waits for a core, so may they.
    """

    def __init__(self, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.over = over
        self.late: list[tuple[float, float]] = []
        """When, and for how long, both in seconds."""

    def run(self) -> None:
        """Watch until it is over."""
        with suppress(OSError):
            os.nice(-os.nice(0))  # a thread's own, on Linux
        last = time.monotonic()
        while not self.over.is_set():
            time.sleep(0.001)
            now = time.monotonic()
            if now - last > LATE_S:
                self.late.append((last, now - last))
            last = now

    def busy(self, begin: float, end: float) -> float:
        """Return for how long in all it woke up late in a window of time, in seconds."""
        return sum(max(0.0, min(end, at + late) - max(begin, at)) for at, late in self.late)


class Writer(threading.Thread):
    """Writes one value after the other, each until it is acknowledged."""

    def __init__(self, fleet: Fleet, shard: str, kind: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.fleet, self.shard, self.kind, self.over = fleet, shard, kind, over
        self.run_key = f"{kind}:{{{fleet.tag(shard)}}}:{os.getpid()}"
        self.acknowledged: list[tuple[int, float]] = []
        self.errors: Counter[str] = Counter()
        self.gap = Gap()

    def run(self) -> None:
        """Write until it is over."""
        client: Any = None
        number = 1
        while not self.over.wait(PAUSE_S):
            try:
                client = client or self.fleet.client()
                answer = self._write(client, number)
            except (redis.RedisError, OSError) as error:
                self.errors[f"{type(error).__name__}: {error}"[:80]] += 1
                continue
            if answer not in {b"added", b"duplicate", b"OK", True}:
                self.errors[f"an answer that nobody expects: {answer!r}"] += 1
                continue
            self.gap.answered()
            self.acknowledged.append((number, time.monotonic()))
            number += 1
        self.gap.close()

    def _write(self, client: Any, number: int) -> Any:
        if self.kind == "samples":
            return client.execute_command("SENSORWINDOW.ADD", self.run_key, number, number)
        return client.set(f"{self.run_key}:{number}", number)

    def lost(self, primary: Any) -> list[str]:
        """Return what was acknowledged and is not there."""
        if self.kind == "samples":
            found = primary.execute_command("SENSORWINDOW.RANGE", self.run_key, "-", "+")
            there = {int(sample[0]) for sample in found if float(sample[1]) == int(sample[0])}
        else:
            numbers = [number for number, _when in self.acknowledged]
            there = set()
            for start in range(0, len(numbers), 1000):
                part = numbers[start : start + 1000]
                values = primary.mget([f"{self.run_key}:{number}" for number in part])
                there |= {number for number, value in zip(part, values, strict=True) if value == b"%d" % number}
        return [f"{self.run_key}:{number}" for number, _when in self.acknowledged if number not in there]


class Probe(threading.Thread):
    """Asks for a write all the time, over a bare connection to the primary of the moment."""

    def __init__(self, fleet: Fleet, shard: str, start: Address, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.fleet, self.shard, self.over = fleet, shard, over
        self.key = f"probe:{{{fleet.tag(shard)}}}"
        self.where = start
        self.stream: Any = None
        self.gap = Gap()

    def run(self) -> None:
        """Write until it is over."""
        while not self.over.is_set():
            try:
                answer = self._ask("SET", self.key, "1")
            except OSError:
                self._leave(self._next())
                continue
            if answer == "+OK":
                self.gap.answered()
                time.sleep(PROBE_PAUSE_S)
            elif answer.startswith("-MOVED"):
                host, _colon, port = answer.split()[2].rpartition(":")
                self._leave((host, int(port)))
            elif answer.startswith("-READONLY"):
                self._leave(self._followed() or self._next())
            else:
                time.sleep(PROBE_PAUSE_S)
        self.gap.close()

    def _ask(self, *words: str) -> str:
        """Return the first line of the answer."""
        if self.stream is None:
            connection = socket.create_connection(self.where, timeout=ANSWER_S / 4)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A primary that is about to hand over keeps its writers waiting; one that is cut off never answers.
            connection.settimeout(ANSWER_S)
            self.stream = connection.makefile("rwb", buffering=0)
            self._ask("AUTH", self.fleet.password)
        raw = "".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)])
        self.stream.write(raw.encode())
        line = bytearray()
        while not line.endswith(b"\r\n"):
            byte = self.stream.read(1)
            if not byte:
                raise ConnectionResetError("closed")
            line += byte
        return line[:-2].decode()

    def _leave(self, where: Address) -> None:
        if self.stream is not None:
            with suppress(OSError):
                self.stream.close()
        self.stream, self.where = None, where

    def _next(self) -> Address:
        """Return the server after this one; any of them tells where the primary is."""
        time.sleep(PROBE_PAUSE_S)
        return self.fleet.nodes[(self.fleet.nodes.index(self.where) + 1) % len(self.fleet.nodes)]

    def _followed(self) -> Address | None:
        """Return whom the server that refused to write follows."""
        with suppress(redis.RedisError, OSError):
            told = self.fleet.direct(self.where).execute_command("ROLE")
            if told[0] == b"slave":
                return (told[1].decode(), int(told[2]))
        return None


class Clients:
    """All writers and probes of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.over = threading.Event()
        self.clock = Clock(self.over)
        shards = fleet.shards()
        self.writers = [Writer(fleet, shard, kind, self.over) for shard in shards for kind in ("samples", "plain")]
        self.probes = [Probe(fleet, shard, primary, self.over) for shard, (primary, _replicas) in shards.items()]

    def start(self) -> dict[str, Any]:
        """Start all, and wait until each has been answered."""
        for thread in (self.clock, *self.writers, *self.probes):
            thread.start()
        end = time.monotonic() + 20
        while not all(thread.gap.last for thread in (*self.writers, *self.probes)):
            if time.monotonic() > end:
                raise SystemExit(f"nobody answers: {[dict(writer.errors) for writer in self.writers]}")
            time.sleep(0.01)
        for thread in (*self.writers, *self.probes):
            thread.gap.longest = 0.0  # what it took to begin is no gap of the fleet's
        return {"shards": [probe.shard for probe in self.probes]}

    def stop(self) -> dict[str, Any]:
        """End all, and say what they went through."""
        self.over.set()
        for thread in (*self.writers, *self.probes):
            thread.join(3 * ANSWER_S)
        errors: Counter[str] = sum((writer.errors for writer in self.writers), Counter())
        return {
            "acknowledged": sum(len(writer.acknowledged) for writer in self.writers),
            "errors": dict(errors),
            "gaps": {
                probe.shard: {
                    "probe": round(probe.gap.longest, 4),
                    "writers": round(max(w.gap.longest for w in self.writers if w.shard == probe.shard), 4),
                    "began": probe.gap.before,
                    "busy": round(self.clock.busy(probe.gap.before, probe.gap.before + probe.gap.longest), 4),
                }
                for probe in self.probes
            },
        }

    def check(self) -> dict[str, Any]:
        """Say what was lost, and which copies differ from their primary."""
        shards = self._in_step()
        lost: list[str] = []
        diverged: list[str] = []
        for writer in self.writers:
            primary = shards.get(writer.shard)
            lost += writer.lost(self.fleet.direct(primary[0])) if primary else [f"{writer.run_key}: no primary"]
        copies = 0
        for shard, (primary, replicas) in shards.items():
            wanted = self._contents(primary)
            for replica in replicas:
                copies += 1
                found = self._contents(replica)
                differ = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
                diverged += [f"{shard}: {key} on {replica[0]}" for key in differ]
        return {
            "lost": len(lost),
            "lost_first": lost[:10],
            "diverged": len(diverged),
            "diverged_first": diverged[:10],
            "copies": copies,
        }

    def _in_step(self) -> dict[str, tuple[Address, list[Address]]]:
        """Return the shards, once each replica has all that its primary has sent."""
        end = time.monotonic() + SETTLE_S
        while True:
            shards = self.fleet.shards()
            behind = [
                node
                for primary, replicas in shards.values()
                for node in replicas
                if self._offset(node, b"slave_repl_offset") != self._offset(primary, b"master_repl_offset")
            ]
            if (shards and not behind) or time.monotonic() > end:
                return shards
            time.sleep(0.1)

    def _offset(self, node: Address, name: bytes) -> Any:
        told = self.fleet.direct(node).info("replication")
        up = told.get("master_link_status", "up") == "up"
        return told.get(name.decode()) if up else None

    def _contents(self, node: Address) -> dict[str, bytes]:
        """Return every key of a server as DUMP tells it."""
        client = self.fleet.direct(node)
        keys = list(client.scan_iter(count=1000))
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), 1000):
            part = keys[start : start + 1000]
            pipeline = client.pipeline(transaction=False)
            if not self.fleet.sentinels:
                pipeline.execute_command("READONLY")  # it has a connection of its own
            for key in part:
                pipeline.dump(key)
            found.update(zip((key.decode() for key in part), pipeline.execute()[-len(part) :], strict=True))
        return found


def lines() -> Iterator[Any]:
    """Return what comes in."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Do as told."""
    # Before all else on a busy machine: a probe that has to wait for its turn would call that the fleet's gap.
    with suppress(OSError):
        os.nice(-10)
    sys.setswitchinterval(0.0005)
    watchdog = threading.Timer(LONGEST, os._exit, (3,))
    watchdog.daemon = True
    watchdog.start()
    told = lines()
    clients = Clients(Fleet(next(told)))
    doings: dict[str, Callable[[], dict[str, Any]]] = {"stop": clients.stop, "check": clients.check}
    print(json.dumps(clients.start()), flush=True)
    for word in told:
        print(json.dumps(doings[word]()), flush=True)


if __name__ == "__main__":
    main()
