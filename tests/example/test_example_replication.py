# SPDX-License-Identifier: GPL-3.0-or-later
"""A replica holds the same windows, whatever its own arguments and clock."""

from __future__ import annotations

import random
import time

import pytest
import redis
from conftest import Server, Servers, free_port, until
from sensor import digest, fill, madd, quantiles

ADD, CONFIG = "SENSORWINDOW.ADD", "SENSORWINDOW.CONFIG"


@pytest.fixture
def pair(servers: Servers) -> tuple[Server, Server]:
    """A primary, and a replica with other module arguments; both serve."""
    port = free_port()
    primary = servers("max-samples 500 max-ahead-ms 1000", port=str(port))
    db = primary.start()
    madd(db, "before", [(t, t) for t in range(600)])
    arguments = "max-samples 7 retention-ms 20 on-conflict replace max-ahead-ms 1"
    replica = servers(arguments, replicaof=f"127.0.0.1 {port}")
    link = replica.start()
    until(lambda: link.info("replication")["master_link_status"] == "up", "the replica is in sync")
    return primary, replica


def in_step(primary: redis.Redis, replica: redis.Redis) -> None:
    """Wait until the replica has all, and compare every key."""
    primary.wait(1, 10_000)
    keys = sorted(primary.keys())
    assert sorted(replica.keys()) == keys
    assert [digest(replica, key) for key in keys] == [digest(primary, key) for key in keys]


def test_replica_has_the_same_windows(pair: tuple[Server, Server]) -> None:
    db, link = pair[0].client(), pair[1].client()
    in_step(db, link)
    rng = random.Random(5)
    now = int(time.time() * 1000)
    db.execute_command(ADD, "ahead", now + 900, 1)
    for _ in range(60):
        key = rng.choice("abc")
        batch = [(rng.randrange(3000), rng.randrange(3)) for _ in range(30)]
        madd(db, key, batch, "QUALITY", rng.choice(("good", "bad")))
        if rng.random() < 0.1:
            db.execute_command(CONFIG, key, "RETENTION-MS", rng.randrange(500, 2500))
    with db.pipeline(transaction=True) as pipe:
        pipe.execute_command(ADD, "in-multi", 1, 1)
        pipe.execute_command(ADD, "in-multi", 1, 2)
        pipe.execute()
    db.eval("redis.call(ARGV[1], KEYS[1], 1, 1)", 1, "before", ADD)
    script = "for i = 1, 20 do redis.call(ARGV[1], KEYS[1], i, i) end"
    db.eval(script, 1, "made-in-a-script", ADD)
    in_step(db, link)
    fill(db, "large", 20_000)
    in_step(db, link)
    assert quantiles(link, "large", "-", "+", 1) == [19_999]


def test_no_change_is_not_replicated(pair: tuple[Server, Server]) -> None:
    db = pair[0].client()
    in_step(db, pair[1].client())

    def offset() -> int:
        return int(db.info("replication")["master_repl_offset"])

    db.config_set("repl-ping-replica-period", 3600)
    words = ("k", 1, 1)
    assert db.execute_command(ADD, *words) == "added"
    before = offset()
    assert db.execute_command(ADD, *words) == "duplicate"
    assert db.execute_command(ADD, "k", 1, 2) == "conflict"
    assert madd(db, "before", [(0, 0)])["expired"] == 1
    assert db.execute_command(CONFIG, "k") == "OK"
    db.execute_command("SENSORWINDOW.STATS", "k", "-", "+")
    assert offset() == before
    in_step(db, pair[1].client())


def test_promoted_replica_goes_on(pair: tuple[Server, Server]) -> None:
    db, link = pair[0].client(), pair[1].client()
    in_step(db, link)
    pair[0].stop()
    link.replicaof("no", "one")
    assert link.execute_command(ADD, "before", 599, 599) == "duplicate"
    assert link.execute_command(ADD, "before", 600, 1) == "added"
