# SPDX-License-Identifier: GPL-3.0-or-later
"""The long query: on a thread, beside other clients, and where none may wait."""

from __future__ import annotations

import threading
import time

import pytest
import redis
from conftest import Server, Servers, Target, until
from sensor import counters, fill, quantiles

LARGE = 300_001
QUANTILE = "SENSORWINDOW.QUANTILE"
ATTEMPTS = 20


PAYLOADS: dict[Target, bytes] = {}


@pytest.fixture
def server(servers: Servers, target: Target) -> Server:
    """A server with a large window, which is filled once and then restored."""
    made = servers("max-waiting 4")
    db = made.start()
    raw = made.client(decode_responses=False)
    if target not in PAYLOADS:
        fill(db, "k", LARGE)
        PAYLOADS[target] = raw.dump("k")
    raw.restore("k", 0, PAYLOADS[target], replace=True)
    return made


def blocked(db: redis.Redis) -> int:
    """Return how many clients wait."""
    return int(db.info("clients")["blocked_clients"])


class Asker:
    """A client that has sent a query and does not yet read the answer."""

    def __init__(self, server: Server, *words: object) -> None:
        self.client = server.client()
        self.connection = self.client.connection_pool.get_connection()
        self.connection.send_command("CLIENT", "ID")
        self.id = self.connection.read_response()
        self.words = words or ("k", "-", "+", 0.5)
        self.ask()

    def ask(self) -> None:
        """Send the query."""
        self.connection.send_command(QUANTILE, *self.words)

    def answer(self) -> list[float]:
        """Read the answer."""
        return [float(value) for value in self.connection.read_response()]

    def outcome(self) -> list[float] | str:
        """Read the answer, or the error."""
        try:
            return self.answer()
        except redis.ResponseError as error:
            return str(error)

    def close(self) -> None:
        """Hang up."""
        self.connection.disconnect()
        self.client.close()


def test_answer_and_thread(server: Server) -> None:
    db = server.client()
    assert quantiles(db, "k", "-", "+", 0, 0.25, 1) == [0, LARGE // 4, LARGE - 1]
    assert counters(db)["threaded"] == 1
    assert quantiles(db, "k", "-", 100, 1)[0] is not None
    assert counters(db)["inlined"] == 1, "a small range needs no thread"


def test_others_are_served_meanwhile(server: Server) -> None:
    """On a busy machine the worker may be done before we ask at all, so it is tried several times."""
    db = server.client()
    most = 0
    for _ in range(ATTEMPTS):
        askers = [Asker(server) for _ in range(4)]
        served = 0
        while blocked(db):
            db.execute_command("SENSORWINDOW.ADD", "other", served, served)
            served += 1
        assert [asker.answer() for asker in askers] == [[LARGE // 2]] * 4
        assert counters(db)["waiting"] == 0
        most = max(most, served)
        if most > 5:
            break
    assert most > 5


def test_answers_in_order_on_one_connection(server: Server) -> None:
    db = server.client()
    with db.pipeline(transaction=False) as pipe:
        pipe.execute_command(QUANTILE, "k", "-", "+", 1)
        pipe.ping()
        pipe.execute_command(QUANTILE, "k", "-", "+", 0)
        first, pong, last = pipe.execute()
    assert ([float(v) for v in first], pong, [float(v) for v in last]) == ([LARGE - 1], True, [0])


def test_a_full_queue_is_an_error(server: Server) -> None:
    db = server.client()
    askers = [Asker(server) for _ in range(12)]
    for asker in askers:
        asker.outcome()
    # Asked while the server sleeps, all of them are read in one turn, before the worker can answer any.
    before = counters(db)["refused"]
    sleeper = server.client()
    connection = sleeper.connection_pool.get_connection()
    connection.send_command("DEBUG", "SLEEP", "1")
    time.sleep(0.2)
    for asker in askers:
        asker.ask()
    assert connection.read_response() == "OK"
    sleeper.close()
    answers = [asker.outcome() for asker in askers]
    refused = answers.count("too many quantile queries are waiting, try again later")
    assert refused == 8
    assert answers.count([LARGE // 2]) == 4
    assert counters(db)["refused"] == before + refused


@pytest.mark.parametrize("how", ["kill", "hang up"])
def test_client_goes_while_it_waits(server: Server, how: str) -> None:
    """On a busy machine all may be answered before a client is gone, so it is tried several times."""
    db = server.client()
    for attempt in range(1, ATTEMPTS + 1):
        askers = [Asker(server) for _ in range(4)]
        until(lambda asked=4 * attempt: counters(db)["threaded"] == asked, "all are asked")
        for asker in askers[1:]:
            if how == "kill":
                assert db.execute_command("CLIENT", "KILL", "ID", asker.id) == 1
            asker.close()
        assert askers[0].answer() == [LARGE // 2]
        until(lambda: not counters(db)["waiting"] and not blocked(db), "nothing waits")
        if counters(db)["cancelled"]:
            break
    assert counters(db)["cancelled"] >= 1
    assert quantiles(db, "k", "-", "+", 1) == [LARGE - 1]
    assert server.alive()


def test_memory_comes_back(server: Server) -> None:
    db = server.client()
    quantiles(db, "k", "-", "+", 0.5)
    before = db.info("memory")["used_memory"]
    for _ in range(5):
        askers = [Asker(server) for _ in range(4)]
        askers[3].close()
        for asker in askers[:3]:
            asker.answer()
            asker.close()
        until(lambda: not counters(db)["waiting"], "nothing waits")
    until(lambda: db.info("memory")["used_memory"] < before + 300_000, "memory is free")


@pytest.mark.parametrize("change", ["delete", "retype", "flush", "empty"])
def test_key_changes_while_a_query_waits(server: Server, change: str) -> None:
    db = server.client()
    askers = [Asker(server) for _ in range(4)]
    until(lambda: counters(db)["threaded"] == 4, "all are asked")
    with db.pipeline() as pipe:
        if change == "flush":
            pipe.flushall()
        else:
            pipe.delete("k")
        if change == "retype":
            pipe.set("k", "text")
        if change == "empty":
            pipe.execute_command("SENSORWINDOW.CONFIG", "k")
        pipe.execute()
    seen: set[float | str | None] = set()
    for asker in askers:
        try:
            value = asker.connection.read_response()[0]
            seen.add(None if value is None else float(value))
        except redis.ResponseError as error:
            seen.add(str(error).split()[0])
    assert seen <= {LARGE // 2, "WRONGTYPE" if change == "retype" else None}
    assert server.alive()


def test_in_a_transaction_and_in_a_script(server: Server) -> None:
    db = server.client()
    with db.pipeline(transaction=True) as pipe:
        pipe.execute_command(QUANTILE, "k", "-", "+", 1)
        pipe.ping()
        answer, pong = pipe.execute()
    assert (float(answer[0]), pong) == (LARGE - 1, True)
    script = "return redis.call(ARGV[1], KEYS[1], '-', '+', '1')"
    assert float(db.eval(script, 1, "k", QUANTILE)[0]) == LARGE - 1
    found = counters(db)
    assert (found["inlined"], found["threaded"]) == (2, 0)


def test_shutdown_with_a_busy_worker(server: Server) -> None:
    db = server.client()
    askers = [Asker(server) for _ in range(4)]
    until(lambda: counters(db)["threaded"] == 4, "all are asked")
    process = server.process
    assert process is not None
    server.stop()
    assert process.returncode == 0, server.log
    for asker in askers:
        asker.close()


def test_under_load(server: Server) -> None:
    """The worker gets the server's lock although the server is never idle."""
    stop = threading.Event()

    def load() -> None:
        with server.client() as client:
            while not stop.is_set():
                with client.pipeline(transaction=False) as pipe:
                    for i in range(200):
                        pipe.execute_command("SENSORWINDOW.ADD", "load", i, i)
                    pipe.execute()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert quantiles(server.client(), "k", "-", "+", 0.5) == [LARGE // 2]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
