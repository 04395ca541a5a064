# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows outlive the server: RDB, AOF, DUMP, both releases, and broken data."""

from __future__ import annotations

import random

import pytest
import redis
from conftest import Server, Servers, Target, until
from sensor import QUALITIES, digest, fill, info, madd, samples, sealed, stats

ADD, CONFIG = "SENSORWINDOW.ADD", "SENSORWINDOW.CONFIG"


def populate(db: redis.Redis, qualities: tuple[str, ...] = QUALITIES) -> None:
    """Make windows of every kind."""
    rng = random.Random(3)
    db.execute_command(CONFIG, "empty", "RETENTION-MS", 5)
    db.execute_command(ADD, "one", 2**63 - 1, "-1e150")
    db.execute_command(CONFIG, "large", "MAX-SAMPLES", 900, "ON-CONFLICT", "REPLACE")
    for _ in range(20):
        batch = [(rng.randrange(10**7), rng.uniform(-1, 1)) for _ in range(100)]
        quality = rng.choice(qualities)
        madd(db, "large", batch, *(() if quality == "good" else ("QUALITY", quality)))


def state(db: redis.Redis) -> dict[str, tuple[str, list[object]]]:
    """Return everything that must outlive the server."""
    names = ("retention-ms", "max-samples", "on-conflict", "samples", "oldest", "newest")
    return {key: (digest(db, key), [info(db, key)[name] for name in names]) for key in sorted(db.keys())}


def raw_client(server: Server) -> redis.Redis:
    """Start the server and return a client that decodes nothing, for DUMP and RESTORE."""
    server.start()
    return server.client(decode_responses=False)


def ends_on_bad_values(server: Server) -> bool:
    """Redis 6.0 ends itself, in order, when a module refuses a value, even in RESTORE."""
    return server.image.version.startswith("6.")


def restored(server: Server, raw: redis.Redis, body: bytes, logged: str = "") -> bool:
    """Whether the server takes the payload; if not, it must refuse it as its version does."""
    try:
        raw.restore("copy", 0, sealed(body), replace=True)
    except redis.ResponseError:
        assert server.alive()
        assert logged in server.log
    except redis.ConnectionError:
        assert ends_on_bad_values(server)
        assert server.ended() == 1, server.log
        assert logged in server.log
        server.start()
    else:
        return True
    return False


def rewrite_aof(db: redis.Redis) -> None:
    """Run BGREWRITEAOF to its end."""

    def idle() -> bool:
        found = db.info("persistence")
        return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]

    until(idle, "no AOF rewrite runs")
    db.bgrewriteaof()
    until(idle, "the AOF is rewritten")
    assert db.info("persistence")["aof_last_bgrewrite_status"] == "ok"


def test_rdb(servers: Servers) -> None:
    server = servers()
    db = server.start()
    populate(db)
    before = state(db)
    db.execute_command("DEBUG", "RELOAD")
    assert state(db) == before
    db.save()
    assert state(server.restart()) == before


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_aof(servers: Servers, preamble: str) -> None:
    server = servers(appendonly="yes", aof_use_rdb_preamble=preamble)
    db = server.start()
    populate(db)
    before = state(db)
    assert state(server.restart()) == before, "from the commands"
    rewrite_aof(db)
    assert state(server.restart()) == before, "from the rewritten file"
    db.execute_command(ADD, "one", 5, 5)
    madd(db, "large", [(10**7, 5)], "QUALITY", "bad")
    before = state(db)
    assert state(server.restart()) == before, "from the rewritten file and commands after it"


def test_aof_holds_the_settings_of_its_time(servers: Servers) -> None:
    server = servers("max-samples 10", appendonly="yes")
    db = server.start()
    madd(db, "k", [(t, t) for t in range(20)])
    before = state(db)
    server.place(server.folder / "sensorwindow.so", "max-samples 5 retention-ms 3")
    assert state(server.restart()) == before


def test_dump_and_restore(servers: Servers) -> None:
    server = servers()
    raw = raw_client(server)
    db = server.client()
    populate(db)
    for key in ("empty", "one", "large"):
        raw.restore(f"{key}-copy", 0, raw.dump(key))
        assert digest(db, f"{key}-copy") == digest(db, key)


def test_release_2_reads_release_1(servers: Servers) -> None:
    server = servers(release=1)
    db = server.start()
    assert {m["ver"] for m in db.module_list() if m["name"] == "sensorwindow"} == {10000}
    with pytest.raises(redis.ResponseError, match="syntax error"):
        db.execute_command(ADD, "k", 1, 1, "QUALITY", "bad")
    populate(db, ("good",))
    before = state(db)
    db.save()
    server.place(servers.build(servers.target, 2))
    db = server.restart()
    assert {m["ver"] for m in db.module_list() if m["name"] == "sensorwindow"} == {20000}
    assert state(db) == before
    assert stats(db, "large", "-", "+", "MIN-QUALITY", "good") == stats(db, "large", "-", "+")
    assert db.execute_command(ADD, "large", 10**7, 1, "QUALITY", "bad") == "added"


def test_release_1_refuses_release_2(servers: Servers, target: Target) -> None:
    server = servers()
    db = server.start()
    populate(db)
    db.save()
    saved = (server.folder / "dump.rdb").read_bytes()
    server.stop()
    server.place(servers.build(target, 1))
    log = server.refused()
    assert "data of encoding version 2, but this release (10000) reads only up to 1" in log
    assert (server.folder / "dump.rdb").read_bytes() == saved, "the data is left as it was"
    server.place(servers.build(target, 2))
    assert state(server.start()), "and the newer release still reads it"


def test_payload_damaged_on_its_way(servers: Servers) -> None:
    """Without a valid checksum no server looks further."""
    server = servers()
    raw = raw_client(server)
    raw.execute_command(ADD, "k", 1, 1)
    payload = raw.dump("k")
    for at in range(len(payload)):
        with pytest.raises(redis.ResponseError, match="checksum"):
            raw.restore("copy", 0, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])
    assert server.alive()


def test_payload_cut_short(servers: Servers) -> None:
    """Cut at every place, with a valid checksum."""
    server = servers()
    raw = raw_client(server)
    raw.execute_command("SENSORWINDOW.MADD", "k", 1, 1, 1000, 2, 10**6, 3)
    body = raw.dump("k")[:-8]
    for end in range(10, len(body) - 3):  # but for the end mark and the RDB version
        assert not restored(server, raw, body[:end] + body[-2:])


def test_payload_forged(servers: Servers) -> None:
    """Damaged in up to three places, with a valid checksum."""
    server = servers()
    raw = raw_client(server)
    raw.execute_command("SENSORWINDOW.MADD", "k", "QUALITY", "bad", 1, 1, 1000, 2, 10**6, 3)
    body = raw.dump("k")[:-8]
    rng = random.Random(11)
    outcomes = set()
    for _ in range(60 if ends_on_bad_values(server) else 500):
        forged = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            forged[rng.randrange(10, len(body) - 2)] = rng.choice((0, 1, 2, 4, 127, 255))
        outcomes.add(restored(server, raw, bytes(forged)))
        if raw.exists("copy"):
            assert info(server.client(), "copy")["samples"] == len(samples(server.client(), "copy"))
    assert outcomes == {True, False}, "or the test does not test"


def test_encoding_from_the_future(servers: Servers) -> None:
    server = servers()
    raw = raw_client(server)
    raw.execute_command(ADD, "k", 1, 1)
    body = bytearray(raw.dump("k")[:-8])
    body[9] += 1  # the lowest byte of the module's identifier: its encoding version
    logged = "data of encoding version 3, but this release (20000) reads only up to 2"
    assert not restored(server, raw, bytes(body), logged)


def test_large_window_by_rdb_and_aof(servers: Servers) -> None:
    server = servers(appendonly="yes", aof_use_rdb_preamble="no")
    db = server.start()
    fill(db, "k", 100_000)
    before = state(db)
    rewrite_aof(db)
    assert state(server.restart()) == before
    db.execute_command("DEBUG", "RELOAD")
    assert state(db) == before
