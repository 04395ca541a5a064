# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role goes to the heir with every write, or it stays where it is."""

from __future__ import annotations

import signal
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_handover

HERE, HEIR, OTHER = "192.0.2.1 6379", "192.0.2.2 6379", "192.0.2.3 6379"
SENTINELS = ("192.0.2.21 26379", "192.0.2.22 26379", "192.0.2.23 26379")


class Clock:
    """Time passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Fleet:
    """A primary with two replicas, and Sentinels where they are wanted. What is sent is remembered in one order."""

    def __init__(self, make: Callable[[], Any], run: Callable[..., dict[str, Any]], clock: Clock) -> None:
        self.clock, self._run, self._make = clock, run, make
        self.sent: list[str] = []
        self.servers = {where: self.redis(where) for where in (HERE, HEIR, OTHER)}
        self.here, self.heir, self.other = self.servers.values()
        for replica in (self.heir, self.other):
            self.turn(replica, HERE)
        self.here.info.update(
            master_repl_offset="500",
            master_replid="abc",
            run_id="r1",
            slave0="ip=192.0.2.2,port=6379,state=online,offset=500,lag=0",
            slave1="ip=192.0.2.3,port=6379,state=online,offset=500,lag=0",
        )
        self.refuses: dict[str, Exception] = {}
        self.promotes = HEIR
        self.steps = 3
        self.flags = "master"
        self.unknown = 0
        self.lag = 0

    def redis(self, where: str) -> Any:
        server = self._make()
        server.info.update(master_repl_offset="500", slave_repl_offset="500")
        server.settings.update({"slave-priority": "100", "repl-ping-slave-period": "10"})
        server.settings.update({"min-replicas-to-write": "0", "min-replicas-max-lag": "10", "masterauth": ""})
        server.answers.update(
            {
                "INFO": lambda *_words: self.tells(where),
                "PUBSUB NUMSUB": [b"__sentinel__:hello", 0],
                "CLIENT": lambda *words: self.said(where, *words),
                "CONFIG REWRITE": lambda *words: self.said(where, *words),
                "CONFIG GET": lambda *words: [words[2].encode(), server.settings[words[2]].encode()],
                "REPLICAOF": lambda *words: self.follows(where, *words),
                "FAILOVER": lambda *words: self.fails_over(where, *words),
                "CLUSTER FAILOVER": lambda *words: self.fails_over(where, *words),
            }
        )
        return server

    def turn(self, server: Any, primary: str = "") -> None:
        """Give a server its role."""
        server.info["role"] = "slave" if primary else "master"
        address, port = (primary or " ").split(" ")
        server.info.update(master_host=address, master_port=port, master_link_status="up" if primary else "")

    # What servers answer

    def said(self, where: str, *words: str) -> bytes:
        self.sent.append(f"{where.split('.')[3].split(maxsplit=1)[0]}: {' '.join(words)}")
        error = self.refuses.get(" ".join(words[:2]))
        if error:
            raise error
        return b"OK"

    def tells(self, where: str) -> bytes:
        server = self.servers[where]
        if where == HEIR and self.lag:
            self.lag -= 1
            return "\n".join(f"{k}:{v}" for k, v in {**server.info, "slave_repl_offset": "450"}.items()).encode()
        return "\n".join(f"{key}:{value}" for key, value in server.info.items()).encode()

    def follows(self, where: str, *words: str) -> bytes:
        self.said(where, *words)
        self.turn(self.servers[where], "" if words[1] == "NO" else f"{words[1]} {words[2]}")
        return b"OK"

    def fails_over(self, where: str, *words: str) -> bytes:
        self.said(where, *words)
        if self.steps:
            self.promote(self.heir)
            self.turn(self.here, HEIR)
        return b"OK"

    def promote(self, server: Any) -> None:
        self.turn(server)
        server.info.update(master_replid2="abc", second_repl_offset=str(int(server.info["slave_repl_offset"]) + 1))

    # Sentinels

    def watched(self, version: str = "7.0.15") -> Fleet:
        for server in self.servers.values():
            server.info["redis_version"] = version
            server.answers["PUBSUB NUMSUB"] = [b"__sentinel__:hello", 3]
        self.here.messages = [
            f"{where.replace(' ', ',')},s{n},1,pumps,192.0.2.1,6379,1" for n, where in enumerate(SENTINELS)
        ]
        for where in SENTINELS:
            sentinel = self.servers[where] = self._make()
            sentinel.info.update(sentinel_tilt="0")
            sentinel.answers.update(
                {
                    "SENTINEL": lambda *words: self.said(SENTINELS[0], *words),
                    "SENTINEL MASTER": lambda *_words: self.sentinels_primary(),
                    "SENTINEL REPLICAS": lambda *_words: self.sentinels_replicas(),
                    "SENTINEL FAILOVER": self.sentinel_begins,
                    "SENTINEL GET-MASTER-ADDR-BY-NAME": lambda *_words: [w.encode() for w in self.promotes.split()],
                }
            )
        return self

    def sentinel_begins(self, *words: str) -> bytes:
        self.said(SENTINELS[0], *words)
        self.flags = "master,failover_in_progress"
        return b"OK"

    def sentinels_primary(self) -> list[bytes]:
        if self.flags != "master":
            self.steps -= 1
            if self.steps == 0:
                self.flags = "master"
                if self.promotes:
                    self.sent.append(f"promoted {self.promotes}")
                    self.promote(self.servers[self.promotes])
        self.unknown -= 1
        run_id = "" if self.unknown >= 0 else "r1"
        table = {"ip": "192.0.2.1", "port": "6379", "runid": run_id, "flags": self.flags, "failover-timeout": "20000"}
        return [word.encode() for pair in table.items() for word in pair]

    def sentinels_replicas(self) -> list[list[bytes]]:
        tables = []
        for where in (HEIR, OTHER):
            ip, port = where.split()
            chosen = where == self.promotes and self.servers[where].info["role"] == "master"
            table = {
                "ip": ip,
                "port": port,
                "flags": "slave,promoted" if chosen else "slave",
                "slave-priority": self.servers[where].settings["slave-priority"],
                "info-refresh": str(int(self.clock.now * 1000) % 10000),
            }
            tables.append([word.encode() for pair in table.items() for word in pair])
        return tables

    # The module

    def connect(self, params: Any, config_command: str = "CONFIG") -> Any:
        where = f"{params['login_host']} {params['login_port']}"
        return self.servers[HERE if where == "127.0.0.1 6379" else where].connect(params, config_command)

    def __call__(self, check: bool = False, **args: Any) -> dict[str, Any]:
        given = {"to": ["2001:db8::2", "192.0.2.2"], "to_port": 6379, "conf_path": "/nowhere", **args}
        return self._run(redis_handover.main, given, check)

    def refused(self, **args: Any) -> str:
        """Run it where it has to fail with nothing changed."""
        result = self(**args)
        assert result["failed"]
        assert not result["changed"]
        assert self.here.info["role"] == "master"
        assert self.heir.settings["slave-priority"] == "100"
        return str(result["msg"])


@pytest.fixture
def fleet(run_module: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    clock = Clock()
    monkeypatch.setattr(redis_handover, "time", clock)
    found = Fleet(type(server), run_module, clock)
    monkeypatch.setattr(_client, "connect", found.connect)
    return found


class TestFailover:
    """Redis 6.2 and later does it by itself."""

    def test_it_is_told_and_proved(self, fleet: Fleet) -> None:
        result = fleet()
        assert (result["changed"], result["command"], result["primary"]) == (True, "FAILOVER", HEIR)
        assert result["msg"] == f"{HEIR} took over by FAILOVER, and this server follows it"
        assert fleet.sent == ["1: FAILOVER TO 192.0.2.2 6379 TIMEOUT 1000", "1: CONFIG REWRITE", "2: CONFIG REWRITE"]

    def test_check_mode_does_nothing(self, fleet: Fleet) -> None:
        result = fleet(check=True)
        assert (result["changed"], result["command"], result["primary"]) == (True, "FAILOVER", "")
        assert fleet.sent == []

    def test_the_second_time(self, fleet: Fleet) -> None:
        fleet()
        again = fleet()
        assert (again["changed"], again["command"], again["primary"]) == (False, "", HEIR)
        fleet.here.info["master_link_status"] = "down"
        assert "but the link is down" in fleet()["msg"]

    def test_a_replica_of_somebody_else(self, fleet: Fleet) -> None:
        fleet.turn(fleet.here, OTHER)
        result = fleet()
        assert result["failed"]
        assert result["msg"].startswith(f"this server is no primary, it follows {OTHER}")

    def test_before_6_2(self, fleet: Fleet) -> None:
        fleet.here.info["redis_version"] = "6.0.16"
        assert "Stop its writers" in fleet.refused()

    def test_the_server_gives_up(self, fleet: Fleet) -> None:
        fleet.steps = 0
        assert fleet.refused().endswith(
            f"{HEIR} lagged behind. Now this server is a primary, and {HEIR} follows {HERE}"
        )

    def test_an_heir_that_does_not_keep_up(self, fleet: Fleet) -> None:
        fleet.lag = 10**6
        assert f"{HEIR} does not keep up: it lacks 50 bytes. Nothing was changed" in fleet.refused()
        assert fleet.sent == []

    def test_it_waits_for_the_heir(self, fleet: Fleet) -> None:
        fleet.lag = 100
        assert fleet()["changed"]

    def test_a_link_that_does_not_come_up(self, fleet: Fleet) -> None:
        fleet.here.answers["FAILOVER"] = lambda *_words: fleet.promote(fleet.heir) or fleet.turn(fleet.here, OTHER)
        result = fleet()
        assert result["failed"]
        assert (result["changed"], result["primary"]) == (True, HEIR)
        assert "Now this server follows 192.0.2.3 6379, and 192.0.2.2 6379 is a primary" in result["msg"]

    def test_a_link_that_is_down(self, fleet: Fleet) -> None:
        def half(*_words: str) -> None:
            fleet.promote(fleet.heir)
            fleet.turn(fleet.here, HEIR)
            fleet.here.info["master_link_status"] = "down"

        fleet.here.answers["FAILOVER"] = half
        result = fleet()
        assert (result["changed"], result["primary"]) == (True, HEIR)
        assert f"Now this server follows {HEIR}, with the link down, and {HEIR} is a primary" in result["msg"]

    @pytest.mark.parametrize(("acknowledged", "waits"), [("500", 0.0), ("400", 0.9)])
    def test_it_goes_when_the_heir_is_about_to_acknowledge(self, fleet: Fleet, acknowledged: str, waits: float) -> None:
        told: list[float] = []

        def listed(*_words: str) -> bytes:
            # From one moment on, another offset; the last one is still not all.
            offset = acknowledged if fleet.clock.now < 1000.2 else str(int(acknowledged) + 1)
            fleet.here.info["slave0"] = f"ip=192.0.2.2,port=6379,state=online,offset={offset},lag=0"
            return fleet.tells(HERE)

        def fails_over(*words: str) -> bytes:
            told.append(fleet.clock.now)
            return fleet.fails_over(HERE, *words)

        fleet.here.answers.update({"INFO": listed, "FAILOVER": fails_over})
        assert fleet()["changed"]
        assert told[0] == pytest.approx(1000.2 + waits if waits else 1000.0, abs=0.03)

    def test_a_redis_conf_that_can_not_be_written(self, fleet: Fleet) -> None:
        fleet.refuses["CONFIG REWRITE"] = _client.ServerError("CONFIG REWRITE: read-only")
        assert "CONFIG REWRITE failed for this server and 192.0.2.2 6379" in fleet()["msg"]

    def test_the_heir_asks_for_a_password(self, fleet: Fleet) -> None:
        fleet.heir.answers["PING"] = _client.ServerError("PING at x: NOAUTH Authentication required.")
        assert "has no masterauth" in fleet.refused()
        fleet.here.settings["masterauth"] = "x"
        assert fleet()["changed"]


def test_a_cluster(fleet: Fleet) -> None:
    fleet.here.info["cluster_enabled"] = "1"
    fleet.here.answers["CLUSTER NODES"] = (
        b"aaa 192.0.2.1:6379@16379 myself,master - 0 0 1 connected\nbbb 192.0.2.2:6379@16379 slave aaa 0 1 1 connected"
    )
    fleet.here.answers["CLUSTER MYID"] = b"aaa"
    result = fleet()
    assert (result["command"], result["primary"]) == ("CLUSTER FAILOVER", HEIR)
    assert fleet.sent == ["2: CLUSTER FAILOVER"]


class TestSentinel:
    """Writes are held back before Sentinel is told, and until this server follows."""

    def test_from_6_2_on_writes_wait(self, fleet: Fleet) -> None:
        result = fleet.watched()()
        assert (result["changed"], result["command"], result["primary"]) == (True, "SENTINEL FAILOVER", HEIR)
        assert fleet.sent == [
            "21: SENTINEL CKQUORUM pumps",
            "1: REPLICAOF NO ONE",
            "1: CLIENT PAUSE 1000 WRITE",
            "1: CLIENT PAUSE 10000 WRITE",
            "21: SENTINEL FAILOVER pumps",
            f"promoted {HEIR}",
            f"1: REPLICAOF {HEIR}",
            "1: CLIENT UNPAUSE",
            "2: CONFIG REWRITE",
            "1: CONFIG REWRITE",
            "2: CONFIG REWRITE",
        ]
        assert fleet.heir.was_set == {"slave-priority": "100"}

    @pytest.mark.parametrize("promotes", [HEIR, ""])
    def test_a_primary_sends_its_replicas_nothing_of_its_own_meanwhile(self, fleet: Fleet, promotes: str) -> None:
        """With a byte more than the heir it could follow by a full sync alone, which ends a former release."""
        fleet.watched().promotes = promotes
        periods = []
        begins = fleet.sentinel_begins

        def told(*words: str) -> bytes:
            periods.append(int(fleet.here.settings["repl-ping-slave-period"]))
            return begins(*words)

        for where in SENTINELS:
            fleet.servers[where].answers["SENTINEL FAILOVER"] = told
        assert fleet()["changed"] is bool(promotes)
        assert periods[0] > 10**6
        assert fleet.here.settings["repl-ping-slave-period"] == "10"

    def test_where_config_is_renamed_away_it_does_without(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        fleet.watched().heir.settings["slave-priority"] = "1"
        monkeypatch.setattr(redis_handover._conf, "renamed_command", lambda *_any: "")
        assert fleet()["primary"] == HEIR
        assert not fleet.here.was_set

    def test_sentinel_may_have_to_learn_who_its_new_primary_is(self, fleet: Fleet) -> None:
        fleet.unknown = 5
        assert fleet.watched()()["primary"] == HEIR

    def test_sentinel_that_never_learns_it_is_not_waited_for_longer_than_that(self, fleet: Fleet) -> None:
        fleet.unknown = 10**9
        assert "and that is not this server" in fleet.watched().refused()
        assert "21: SENTINEL FAILOVER pumps" not in fleet.sent

    def test_before_writes_are_refused(self, fleet: Fleet) -> None:
        result = fleet.watched("6.0.16")()
        assert (result["changed"], result["primary"]) == (True, HEIR)
        told = fleet.sent.index("21: SENTINEL FAILOVER pumps")
        assert fleet.sent[told - 1] == f"1: REPLICAOF {HEIR}"
        assert not [line for line in fleet.sent if "PAUSE" in line]
        assert fleet.here.settings["min-replicas-to-write"] == "0"

    def test_check_mode_asks_alone(self, fleet: Fleet) -> None:
        assert fleet.watched()(check=True)["command"] == "SENTINEL FAILOVER"
        assert fleet.sent == ["21: SENTINEL CKQUORUM pumps"]

    @pytest.mark.parametrize("version", ["7.0.15", "6.0.16"])
    def test_sentinel_refuses(self, fleet: Fleet, version: str) -> None:
        fleet.watched(version)
        fleet.refuses["SENTINEL FAILOVER"] = _client.ServerError("SENTINEL: NOGOODSLAVE No suitable replica")
        assert "NOGOODSLAVE No suitable replica. Nothing was changed" in fleet.refused()
        assert fleet.sent[-1] == ("1: CLIENT UNPAUSE" if version > "6.2" else "1: REPLICAOF NO ONE")
        assert fleet.here.settings["min-replicas-to-write"] == "0"

    @pytest.mark.parametrize("version", ["7.0.15", "6.0.16"])
    def test_sentinel_gives_up(self, fleet: Fleet, version: str) -> None:
        fleet.watched(version).promotes = ""
        assert "Sentinel gave up" in fleet.refused()
        # At once, and not only when its failover-timeout is over.
        assert fleet.clock.now < 1015
        assert fleet.sent[-1] == ("1: CLIENT UNPAUSE" if version > "6.2" else "1: REPLICAOF NO ONE")

    def test_no_write_goes_on_while_sentinel_takes_its_time(self, fleet: Fleet) -> None:
        fleet.watched().steps = 500
        assert fleet()["changed"]
        assert fleet.sent.count("1: CLIENT PAUSE 10000 WRITE") >= 4

    def test_a_lost_answer_is_no_refusal(self, fleet: Fleet) -> None:
        fleet.watched()
        begins = fleet.sentinel_begins

        def lost(*words: str) -> None:
            begins(*words)
            raise _client.NotReachedError("gone")

        for where in SENTINELS:
            fleet.servers[where].answers["SENTINEL FAILOVER"] = lost
        assert fleet()["primary"] == HEIR

    def test_the_heir_lags_while_writes_wait(self, fleet: Fleet) -> None:
        fleet.watched()
        fleet.here.answers["CLIENT PAUSE"] = lambda *words: (setattr(fleet, "lag", 500), fleet.said(HERE, *words))[1]
        assert "does not keep up" in fleet.refused()
        assert fleet.sent[-1] == "1: CLIENT UNPAUSE"
        assert "21: SENTINEL FAILOVER pumps" not in fleet.sent

    def test_somebody_else_is_promoted(self, fleet: Fleet) -> None:
        fleet.watched().promotes = OTHER
        result = fleet()
        assert result["failed"]
        assert (result["changed"], result["primary"]) == (True, OTHER)
        assert f"1: REPLICAOF {OTHER}" in fleet.sent
        assert result["msg"].startswith(f"Sentinel promoted {OTHER} in place of {HEIR}. It has all data")

    def test_something_is_missing(self, fleet: Fleet) -> None:
        fleet.watched()
        promote = fleet.promote

        def late(server: Any) -> None:
            promote(server)
            fleet.here.info["master_repl_offset"] = "600"

        fleet.promote = late  # type: ignore[method-assign]
        result = fleet()
        assert result["failed"]
        assert (result["changed"], result["primary"]) == (True, HEIR)
        assert "it lacks 100 bytes of all that was written here" in result["msg"]

    def test_a_server_that_does_not_follow_keeps_its_pause(self, fleet: Fleet) -> None:
        fleet.watched()
        fleet.refuses[f"REPLICAOF {HEIR.split(maxsplit=1)[0]}"] = _client.ServerError("REPLICAOF at x: no")
        result = fleet()
        assert result["failed"]
        assert (result["changed"], result["primary"]) == (True, HEIR)
        assert "1: CLIENT UNPAUSE" not in fleet.sent

    def test_no_majority(self, fleet: Fleet) -> None:
        fleet.watched()
        for where in SENTINELS[1:]:
            fleet.servers[where].down = "refused"
        assert "this host reaches 1 of 3 Sentinels, which is no majority" in fleet.refused()

    def test_a_sentinel_that_follows_another_primary(self, fleet: Fleet) -> None:
        fleet.watched().here.info["run_id"] = "r9"
        assert "Sentinel takes 192.0.2.1 6379 for the primary pumps" in fleet.refused()

    def test_no_quorum(self, fleet: Fleet) -> None:
        fleet.watched().refuses["SENTINEL CKQUORUM"] = _client.ServerError("SENTINEL: NOQUORUM 1 usable")
        assert fleet.refused() == "Sentinel could not fail over: NOQUORUM 1 usable"

    def test_nobody_is_heard(self, fleet: Fleet) -> None:
        fleet.watched().here.messages = []
        assert "3 Sentinels watch this server, but none was heard" in fleet.refused()


def test_signals_wait() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with redis_handover.uninterrupted():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == former
