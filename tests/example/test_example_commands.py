# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command, reply and error, on a server that only has to answer."""

from __future__ import annotations

import random

import pytest
import redis
from conftest import Server, Servers, Target, until
from sensor import (
    DAY_MS,
    NOTHING,
    QUALITIES,
    Model,
    counters,
    digest,
    fill,
    info,
    interpolated,
    madd,
    pairs,
    quantiles,
    samples,
    stats,
)

ADD, CONFIG = "SENSORWINDOW.ADD", "SENSORWINDOW.CONFIG"
COMMANDS = ("CONFIG", "ADD", "MADD", "INFO", "STATS", "RANGE", "QUANTILE")


def test_module_list(db: redis.Redis) -> None:
    listed = [pairs(m) if isinstance(m, list) else m for m in db.execute_command("MODULE", "LIST")]
    ours = [m for m in listed if m["name"] == "sensorwindow"]
    assert [m["ver"] for m in ours] == [20000]


def test_first_sample_makes_a_window_with_the_defaults(db: redis.Redis) -> None:
    assert db.execute_command(ADD, "k", 1000, "2.5") == "added"
    assert db.type("k") == "sensorwin"
    found = info(db, "k")
    assert int(str(found.pop("bytes"))) > 0
    assert found == {
        "retention-ms": DAY_MS,
        "max-samples": 100000,
        "on-conflict": "KEEP",
        "samples": 1,
        "oldest": 1000,
        "newest": 1000,
        "chunks": 1,
    }


def test_redelivery_changes_nothing(db: redis.Redis) -> None:
    batch = [(3000, 3.0), (1000, 1.0), (2000, -0.0)]
    assert madd(db, "k", batch) == {**NOTHING, "added": 3}
    before = digest(db, "k")
    for again in (batch, batch[::-1]):
        assert madd(db, "k", again) == {**NOTHING, "duplicate": 3}
    assert db.execute_command(ADD, "k", 2000, "0") == "duplicate"
    assert digest(db, "k") == before
    assert samples(db, "k") == [(1000, 1.0), (2000, 0.0), (3000, 3.0)]


def test_conflict_keeps_the_first_by_default(db: redis.Redis) -> None:
    db.execute_command(ADD, "k", 1, 1)
    assert db.execute_command(ADD, "k", 1, 2) == "conflict"
    assert samples(db, "k") == [(1, 1.0)]


def test_conflict_replaces_where_asked(db: redis.Redis) -> None:
    db.execute_command(CONFIG, "k", "ON-CONFLICT", "replace")
    db.execute_command(ADD, "k", 1, 1)
    assert db.execute_command(ADD, "k", 1, 2) == "replaced"
    assert db.execute_command(ADD, "k", 1, 2) == "duplicate"
    assert samples(db, "k") == [(1, 2.0)]


def test_retention_goes_by_the_newest_sample(db: redis.Redis) -> None:
    db.execute_command(CONFIG, "k", "RETENTION-MS", 1000)
    madd(db, "k", [(5000, 5), (6000, 6)])
    assert samples(db, "k") == [(5000, 5.0), (6000, 6.0)], "the edge itself stays"
    assert db.execute_command(ADD, "k", 4999, 4) == "expired"
    assert db.execute_command(ADD, "k", 6001, 7) == "added"
    assert samples(db, "k") == [(6000, 6.0), (6001, 7.0)]
    assert db.execute_command(ADD, "k", 5000, 5) == "expired", "a late redelivery"
    assert db.execute_command(ADD, "k", 2**63 - 1, 8) == "added"
    assert samples(db, "k") == [(2**63 - 1, 8.0)]


def test_cap_keeps_the_newest(db: redis.Redis) -> None:
    db.execute_command(CONFIG, "k", "MAX-SAMPLES", 3)
    assert madd(db, "k", [(i, i) for i in (5, 3, 4)]) == {**NOTHING, "added": 3}
    assert db.execute_command(ADD, "k", 2, 2) == "expired"
    assert db.execute_command(ADD, "k", 6, 6) == "added"
    assert [t for t, _ in samples(db, "k")] == [4, 5, 6]
    assert db.execute_command(ADD, "k", 3, 3) == "expired"


def test_config_alters_at_once_and_keeps_what_is_not_named(db: redis.Redis) -> None:
    assert db.execute_command(CONFIG, "k") == "OK"
    assert info(db, "k")["samples"] == 0
    assert info(db, "k")["oldest"] is None
    madd(db, "k", [(i * 1000, i) for i in range(500)])
    assert db.execute_command(CONFIG, "k", "retention-ms", 100_000) == "OK"
    assert info(db, "k")["samples"] == 101
    assert db.execute_command(CONFIG, "k", "MAX-SAMPLES", 7, "ON-CONFLICT", "REPLACE") == "OK"
    found = info(db, "k")
    assert (found["retention-ms"], found["max-samples"]) == (100_000, 7)
    assert (found["on-conflict"], found["samples"], found["oldest"]) == ("REPLACE", 7, 493_000)
    assert db.execute_command(CONFIG, "k", "RETENTION-MS", 0) == "OK"
    assert info(db, "k")["samples"] == 7


def test_stats_of_known_samples(db: redis.Redis) -> None:
    madd(db, "k", [(1000, 1), (2000, 4), (4000, 7)])
    assert stats(db, "k", "-", "+") == {
        "count": 3,
        "first-timestamp": 1000,
        "first": 1,
        "last-timestamp": 4000,
        "last": 7,
        "min": 1,
        "max": 7,
        "sum": 12,
        "mean": 4,
        "stddev": pytest.approx(6**0.5),
        "rate": 2,
    }
    one = stats(db, "k", 2000, 2000)
    assert (one["count"], one["mean"], one["stddev"], one["rate"]) == (1, 4, 0, None)
    assert stats(db, "k", 2001, 3999) == Model().stats(0, 0)
    assert stats(db, "none", "-", "+") == Model().stats(0, 0)


def test_window_edges(db: redis.Redis) -> None:
    madd(db, "k", [(t, t) for t in (1000, 2000, 3000)])

    def found(start: object, end: object) -> list[int]:
        return [t for t, _ in samples(db, "k", start, end)]

    assert found(1000, 3000) == [1000, 2000, 3000]
    assert found("(1000", "(3000") == [2000]
    assert found(1001, 2999) == [2000]
    assert found("-", "(1000") == found("(3000", "+") == found(3000, 1000) == []
    assert found(-1000, "+") == [2000, 3000]
    assert found("(-1000", "+") == [3000]
    assert found("-", -1) == [1000, 2000]
    assert found(-9_999_999, "+") == [1000, 2000, 3000]
    assert found("-", -9_999_999) == found("-", "(0") == []
    assert found(0, 2**63 - 1) == found(-(2**63), "+") == [1000, 2000, 3000]
    assert samples(db, "k", "-", "+", "COUNT", 2) == [(1000, 1000.0), (2000, 2000.0)]
    assert samples(db, "none", -5, "+") == []


def test_sums_do_not_lose_small_values_or_overflow(db: redis.Redis) -> None:
    madd(db, "k", [(0, 1e100), (1, 1.0), (2, -1e100)])
    assert stats(db, "k", "-", "+")["sum"] == 1.0
    madd(db, "big", [(i, (-1) ** i * 1e150) for i in range(1000)])
    assert stats(db, "big", "-", "+")["stddev"] == pytest.approx(1e150)


def test_values_survive_exactly(db: redis.Redis) -> None:
    values = [0.1, 1 / 3, 5e-324, 1e150, -1e150, 123456789.123456789]
    madd(db, "k", list(enumerate(values)))
    assert [value for _, value in samples(db, "k")] == values


def test_quality(db: redis.Redis) -> None:
    for timestamp, quality in enumerate(("good", "BAD", "uncertain")):
        assert db.execute_command(ADD, "k", timestamp, timestamp, "QUALITY", quality) == "added"
    assert madd(db, "k", [(1, 1), (3, 3)], "QUALITY", "bad") == {
        **NOTHING,
        "added": 1,
        "duplicate": 1,
    }
    assert db.execute_command(ADD, "k", 1, 1) == "conflict", "another quality is another sample"
    for quality, expected in (("good", [0]), ("uncertain", [0, 2]), ("bad", [0, 1, 2, 3])):
        words = ("-", "+", "MIN-QUALITY", quality)
        assert [t for t, _ in samples(db, "k", *words)] == expected
        assert stats(db, "k", *words)["count"] == len(expected)
        assert quantiles(db, "k", *words, 1) == [expected[-1]]
    reply = db.execute_command("SENSORWINDOW.RANGE", "k", 1, "+", "WITHQUALITY", "COUNT", 2)
    assert [quality for _, _, quality in reply] == ["bad", "uncertain"]


def test_quantiles(db: redis.Redis) -> None:
    madd(db, "k", [(i, v) for i, v in enumerate((40, 10, 30, 20))])
    assert quantiles(db, "k", "-", "+", 0, 0.5, 1, "0.25") == [10, 25, 40, 17.5]
    assert quantiles(db, "k", 1, 1, 0.99) == [10]
    assert quantiles(db, "k", 100, "+", 0.5, 0.9) == [None, None]
    assert quantiles(db, "none", "-", "+", 0.5) == [None]


# The message, and the commands that it answers, as words after SENSORWINDOW.
ERRORS = {
    "timestamp is not": [
        *("ADD k x 1", "ADD k -1 1", "ADD k 1.5 1", f"ADD k {2**63} 1", "ADD k () 1"),
        "MADD k 1 1 y 2",
    ],
    "value is not": [f"ADD k 1 {v}" for v in ("x", "nan", "inf", "-inf", "1e151", "-1e151", "()")],
    "syntax error": [
        *("ADD k 1 1 x", "ADD k 1 1 QUALITY", "ADD k 1 1 QUALITY bad x"),
        *("CONFIG k MAX-SAMPLES", "CONFIG k NO 1", "STATS k 1 2 x", "STATS k 1 2 MIN-QUALITY"),
        *("RANGE k 1 2 COUNT", "RANGE k 1 2 x 3", "QUANTILE k 1 2 MIN-QUALITY"),
    ],
    "quality is not": [
        *("ADD k 1 1 QUALITY x", "MADD k quality 1", "STATS k 1 2 MIN-QUALITY x"),
        *("RANGE k 1 2 MIN-QUALITY x", "QUANTILE k 1 2 MIN-QUALITY x 0.5"),
    ],
    "bound is not": [
        *(f"STATS k {a} {b}" for a, b in (("x", 1), (1, "y"), ("(", 1), ("()", 1), ("(-", 1))),
        *(f"STATS k ({2**63 - 1} +", f"RANGE k - (-{2**63}", "QUANTILE k a 1 1"),
    ],
    "COUNT is not": [f"RANGE k 1 2 COUNT {n}" for n in (0, -1, "x")],
    "RETENTION-MS is not": [f"CONFIG k RETENTION-MS {n}" for n in (-1, "x", 2**63)],
    "MAX-SAMPLES is not": [f"CONFIG k MAX-SAMPLES {n}" for n in (0, (1 << 24) + 1, "x")],
    "ON-CONFLICT is not": ["CONFIG k ON-CONFLICT x"],
    "quantile is not": [f"QUANTILE k 1 2 {q}" for q in (-0.1, 1.1, "x", "nan")],
    "too many quantiles": ["QUANTILE k 1 2" + " 0.5" * 33],
    "wrong number of arguments": [
        *(*COMMANDS, "ADD k 1", "INFO k x", "STATS k 1", "RANGE k 1", "QUANTILE k 1 2"),
        *("MADD k 1 2 3", "MADD k QUALITY good", "QUANTILE k 1 2 MIN-QUALITY good"),
    ],
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(db: redis.Redis, message: str) -> None:
    for line in ERRORS[message]:
        name, *words = ("" if word == "()" else word for word in line.split(" "))
        with pytest.raises(redis.ResponseError, match=message):
            db.execute_command(f"SENSORWINDOW.{name}", *words)
    assert db.keys() == [], "an error leaves nothing behind"


def test_wrong_type(db: redis.Redis) -> None:
    db.set("k", "text")
    words = {"CONFIG": (), "ADD": (1, 1), "MADD": (1, 1), "INFO": (), "QUANTILE": (1, 2, 0.5)}
    for name in COMMANDS:
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            db.execute_command(f"SENSORWINDOW.{name}", "k", *words.get(name, (1, 2)))
    assert db.get("k") == "text"
    db.execute_command(ADD, "window", 1, 1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        db.get("window")


def test_info_of_no_key(db: redis.Redis) -> None:
    assert db.execute_command("SENSORWINDOW.INFO", "none") is None


def test_keys_and_flags_are_declared(db: redis.Redis) -> None:
    flags = {
        **{name: {"readonly"} for name in ("info", "stats", "range", "quantile")},
        **{name: {"write", "denyoom"} for name in ("config", "madd")},
        "add": {"write", "denyoom", "fast"},
    }
    for name, expected in flags.items():
        words = (f"SENSORWINDOW.{name}", "the-key", "1", "2", "0.5")
        assert db.execute_command("COMMAND GETKEYS", *words) == ["the-key"]
        _, _, found, first, last, step = db.execute_command("COMMAND INFO", words[0])[0][:6]
        assert set(found) - {"module"} == expected
        assert (first, last, step) == (1, 1, 1)


def test_write_is_refused_when_memory_is_out(servers: Servers) -> None:
    server = servers(maxmemory="1")
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        server.start().execute_command(ADD, "k", 1, 1)


def test_no_change_disturbs_no_watch(db: redis.Redis, shared_server: Server) -> None:
    db.execute_command(ADD, "k", 1, 1)
    with shared_server.client() as other, db.pipeline() as pipe:
        for value, disturbed in ((1, False), (2, False)):
            pipe.watch("k")
            other.execute_command(ADD, "k", 1, value)
            pipe.multi()
            pipe.ping()
            assert pipe.execute() == [True], disturbed
        pipe.watch("k")
        other.execute_command(ADD, "k", 2, 2)
        pipe.multi()
        pipe.ping()
        with pytest.raises(redis.WatchError):
            pipe.execute()


@pytest.mark.parametrize("seed", range(6))
def test_against_the_model(db: redis.Redis, seed: int) -> None:
    """Random deliveries: late, repeated, conflicting; then every question at random edges."""
    rng = random.Random(seed)
    model = Model(
        retention_ms=rng.choice((0, 500, 3000)),
        max_samples=rng.choice((50, 400, 100_000)),
        replace=rng.random() < 0.5,
    )
    db.execute_command(
        *(CONFIG, "k", "RETENTION-MS", model.retention_ms, "MAX-SAMPLES", model.max_samples),
        *("ON-CONFLICT", "REPLACE" if model.replace else "KEEP"),
    )
    clock = 0
    for _ in range(60):
        clock += rng.randrange(200)
        quality = rng.choice(QUALITIES)
        spread = rng.choice((10, 1000, 6000))
        batch = [
            (max(0, clock - rng.randrange(spread)), rng.choice((1.0, rng.uniform(-1e6, 1e6))))
            for _ in range(rng.randrange(1, 60))
        ]
        expected = dict(NOTHING)
        for timestamp, value in batch:
            expected[model.add(timestamp, value, quality)] += 1
        assert madd(db, "k", batch, "QUALITY", quality) == expected
    assert samples(db, "k") == model.select(0, 2**63)
    edges = [*model.kept, *(rng.randrange(clock + 1) for _ in range(10))]
    for _ in range(40):
        start, end = sorted(rng.choices(edges, k=2))
        worst = rng.choice(QUALITIES)
        words = (start, end, "MIN-QUALITY", worst)
        chosen = model.select(start, end, worst)
        assert samples(db, "k", *words) == chosen
        assert stats(db, "k", *words) == {
            name: None if number is None else pytest.approx(number, rel=1e-9, abs=1e-6)
            for name, number in model.stats(start, end, worst).items()
        }
        asked = [rng.random() for _ in range(3)]
        answers = [interpolated((v for _, v in chosen), q) for q in asked if chosen]
        assert quantiles(db, "k", *words, *map(repr, asked)) == (pytest.approx(answers) if chosen else [None] * 3)


def test_any_order_of_delivery_ends_in_the_same_window(db: redis.Redis) -> None:
    rng = random.Random(7)
    sent = [(t, rng.uniform(-5, 5)) for t in rng.sample(range(20_000), 3000)]
    orders = [sorted(sent), sorted(sent, reverse=True), sent, rng.sample(sent, len(sent)) + sent]
    for number, order in enumerate(orders):
        db.execute_command(CONFIG, f"k{number}", "RETENTION-MS", 9000, "MAX-SAMPLES", 1000)
        for start in range(0, len(order), 100):
            madd(db, f"k{number}", order[start : start + 100])
    assert len({digest(db, f"k{number}") for number in range(len(orders))}) == 1


@pytest.mark.parametrize("order", ["rising", "falling", "random"])
def test_memory_usage_is_what_the_server_pays(db: redis.Redis, order: str) -> None:
    count = 50_000
    timestamps = list(range(count))
    if order == "falling":
        timestamps.reverse()
    if order == "random":
        random.Random(1).shuffle(timestamps)
    db.execute_command(CONFIG, "k")
    before = db.info("memory")["used_memory"]
    pipe = db.pipeline(transaction=False)
    for start in range(0, count, 1000):
        flat = [word for t in timestamps[start : start + 1000] for word in (t, t)]
        pipe.execute_command("SENSORWINDOW.MADD", "k", *flat)
    pipe.execute()
    usage = int(db.memory_usage("k"))
    paid = db.info("memory")["used_memory"] - before
    assert usage == pytest.approx(paid, rel=0.15)
    assert usage / count < {"rising": 18, "falling": 18, "random": 27}[order]


def test_deleting_gives_the_memory_back(db: redis.Redis) -> None:
    fill(db, "warm", 20_000)
    db.delete("warm")
    before = db.info("memory")["used_memory"]
    for delete in (db.delete, db.unlink):
        fill(db, "k", 100_000)
        assert db.info("memory")["used_memory"] > before + 1_600_000
        delete("k")
        until(lambda: db.info("memory")["used_memory"] < before + 200_000, "memory is free")


def test_info_section(db: redis.Redis) -> None:
    before = counters(db)
    quantiles(db, "none", "-", "+", 0.5)
    assert counters(db) == {**before, "inlined": before["inlined"] + 1}


def test_unload_is_refused(servers: Servers, target: Target) -> None:
    old = target.image.version.startswith("6.")
    server = servers() if old else servers(enable_module_command="yes")
    db = server.start()
    fill(db, "k", 20_000)
    assert quantiles(db, "k", "-", "+", 1) == [19_999]
    with pytest.raises(redis.ResponseError, match="data types"):
        db.execute_command("MODULE", "UNLOAD", "sensorwindow")
    assert quantiles(db, "k", "-", "+", 1) == [19_999]
