# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's commands from Python, a model of a window, and DUMP payloads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import redis

DAY_MS = 24 * 60 * 60 * 1000
QUALITIES = ("good", "uncertain", "bad")
Sample = tuple[int, float]
NOTHING = {"added": 0, "replaced": 0, "duplicate": 0, "conflict": 0, "expired": 0}


def pairs(reply: Sequence[object]) -> dict[str, object]:
    """Turn a flat reply of names and values into a dictionary."""
    return dict(zip(map(str, reply[::2]), reply[1::2], strict=True))


def madd(db: redis.Redis, key: str, samples: Iterable[Sample], *options: str) -> dict[str, object]:
    """Add samples in one command."""
    flat = [word for timestamp, value in samples for word in (timestamp, repr(value))]
    return pairs(db.execute_command("SENSORWINDOW.MADD", key, *options, *flat))


def fill(db: redis.Redis, key: str, count: int, step_ms: int = 10) -> None:
    """Make a window of `count` samples whose values are a permutation of 0 to count - 1."""
    db.execute_command("SENSORWINDOW.CONFIG", key, "RETENTION-MS", 0, "MAX-SAMPLES", 1 << 24)
    assert count % 7919, "the values would not be a permutation"
    pipe = db.pipeline(transaction=False)
    for start in range(0, count, 5000):
        flat: list[int] = []
        for i in range(start, min(start + 5000, count)):
            flat += (i * step_ms, i * 7919 % count)
        pipe.execute_command("SENSORWINDOW.MADD", key, *flat)
    pipe.execute()


def stats(db: redis.Redis, key: str, *words: object) -> dict[str, float | None]:
    """Return STATS as numbers."""
    reply = pairs(db.execute_command("SENSORWINDOW.STATS", key, *words))
    return {name: None if v is None else float(str(v)) for name, v in reply.items()}


def samples(db: redis.Redis, key: str, *words: object) -> list[Sample]:
    """Return RANGE as pairs, the whole window without words."""
    reply = db.execute_command("SENSORWINDOW.RANGE", key, *(words or ("-", "+")))
    return [(int(timestamp), float(value)) for timestamp, value in reply]


def info(db: redis.Redis, key: str) -> dict[str, object]:
    """Return INFO of the window."""
    return pairs(db.execute_command("SENSORWINDOW.INFO", key))


def quantiles(db: redis.Redis, key: str, *words: object) -> list[float | None]:
    """Return QUANTILE as numbers."""
    reply = db.execute_command("SENSORWINDOW.QUANTILE", key, *words)
    return [None if value is None else float(value) for value in reply]


def digest(db: redis.Redis, key: str) -> str:
    """Return the digest of a key's value."""
    return str(db.execute_command("DEBUG", "DIGEST-VALUE", key)[0])


def counters(db: redis.Redis) -> dict[str, int]:
    """Return the module's own counters of INFO."""
    found = db.info("sensorwindow")
    return {name.removeprefix("sensorwindow_"): int(value) for name, value in found.items()}


@dataclass
class Model:
    """What a window must do, in the plainest words."""

    retention_ms: int = DAY_MS
    max_samples: int = 100_000
    replace: bool = False
    kept: dict[int, tuple[float, str]] = field(default_factory=dict)

    def add(self, timestamp: int, value: float, quality: str = "good") -> str:
        """Add a sample; return what became of it."""
        if timestamp in self.kept:
            if self.kept[timestamp] == (value, quality):
                return "duplicate"
            if not self.replace:
                return "conflict"
            self.kept[timestamp] = (value, quality)
            return "replaced"
        self.kept[timestamp] = (value, quality)
        self.evict()
        return "added" if timestamp in self.kept else "expired"

    def evict(self) -> None:
        """Drop what is beyond retention, and the oldest beyond the cap."""
        newest = max(self.kept, default=0)
        horizon = newest - self.retention_ms if self.retention_ms else 0
        kept = sorted(t for t in self.kept if t >= horizon)[-self.max_samples :]
        self.kept = {timestamp: self.kept[timestamp] for timestamp in kept}

    def select(self, start: int, end: int, worst: str = "bad") -> list[Sample]:
        """Return the samples of a range, both ends included, of a quality or better."""
        allowed = QUALITIES[: QUALITIES.index(worst) + 1]
        return [
            (timestamp, value)
            for timestamp, (value, quality) in sorted(self.kept.items())
            if start <= timestamp <= end and quality in allowed
        ]

    def stats(self, start: int, end: int, worst: str = "bad") -> dict[str, float | None]:
        """Return the statistics of a range."""
        chosen = self.select(start, end, worst)
        names = "first-timestamp first last-timestamp last min max sum mean stddev rate"
        if not chosen:
            return {"count": 0, **dict.fromkeys(names.split())}
        (t0, v0), (t1, v1) = chosen[0], chosen[-1]
        values = [value for _, value in chosen]
        return {
            "count": len(chosen),
            "first-timestamp": t0,
            "first": v0,
            "last-timestamp": t1,
            "last": v1,
            "min": min(values),
            "max": max(values),
            "sum": math.fsum(values),
            "mean": math.fsum(values) / len(values),
            "stddev": statistics.pstdev(values),
            "rate": (v1 - v0) * 1000 / (t1 - t0) if len(chosen) > 1 else None,
        }


def interpolated(values: Iterable[float], q: float) -> float:
    """Return a quantile by linear interpolation between neighbours."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def crc64(data: bytes) -> int:
    """Return the checksum that ends a DUMP payload (CRC-64 of Jones, reflected)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc


def sealed(body: bytes) -> bytes:
    """Give a DUMP payload, less its checksum, a valid checksum."""
    return body + crc64(body).to_bytes(8, "little")
