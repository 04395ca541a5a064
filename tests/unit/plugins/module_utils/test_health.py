# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server and its shard are well."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _health
from ansible_collections.edgeops.redis_modules.plugins.module_utils._health import Counters, Seen

PRIMARY = {
    "role": "master",
    "run_id": "p1",
    "uptime_in_seconds": "100",
    "master_repl_offset": "500",
    "slave0": "ip=192.0.2.2,port=6379,state=online,offset=500,lag=0",
    "slave1": "ip=192.0.2.3,port=6379,state=online,offset=480,lag=1",
}
REPLICA = {
    "role": "slave",
    "run_id": "r1",
    "master_host": "192.0.2.1",
    "master_port": "6379",
    "master_link_status": "up",
    "master_sync_in_progress": "0",
}
WHOLE = {"cluster_state": "ok", "cluster_slots_ok": "16384"}
NODES = (
    "aaa 192.0.2.1:6379@16379 myself,master - 0 0 1 connected 0-16383\nbbb 192.0.2.2:6379@1 slave aaa 0 1 1 connected\n"
)


def faults(own: dict[str, str] | None = None, replicas: int = 2, others: bool = False, **more: Any) -> list[str]:
    """Return the faults of a replica whose shard is well, unless more is said."""
    seen = Seen(own or REPLICA, PRIMARY, offset=480)._replace(**more)
    return _health.faults(seen, replicas, 100, others)


def test_all_is_well() -> None:
    assert faults() == []
    assert faults(PRIMARY) == []
    assert faults({"role": "master"}, replicas=0, primary={"role": "master"}) == []


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"loading": "1"}, "it is loading its data"),
        ({"master_link_status": "down"}, "its link to its primary 192.0.2.1:6379 is down"),
        ({"master_link_status": "down", "master_sync_in_progress": "1"}, "it is taking over its primary's data"),
    ],
)
def test_the_server_itself(own: dict[str, str], words: str) -> None:
    assert faults({**REPLICA, **own}) == [words]
    # One that is about to be mended may be out of sync; then one copy less has to be there, and not two.
    online = {**PRIMARY, "slave1": PRIMARY["slave1"].replace("online", "wait_bgsave")}
    assert faults({**REPLICA, **own}, others=True, primary=online) == []
    assert faults({**REPLICA, **own}, replicas=3, others=True, primary=online) == [
        "the primary has 1 replicas in sync (192.0.2.2:6379), and should have 2"
    ]


def test_its_shard() -> None:
    assert faults(replicas=3) == [
        "the primary has 2 replicas in sync (192.0.2.2:6379, 192.0.2.3:6379), and should have 3"
    ]
    assert faults(offset=490) == ["the replica 192.0.2.3:6379 is 10 bytes behind"]
    assert faults(primary={}, primary_error="refused") == ["its primary can't be asked: refused"]
    assert faults(primary={}, primary_error="refused", others=True) == ["its primary can't be asked: refused"]


def test_its_cluster() -> None:
    assert faults(state=WHOLE, nodes=NODES) == []
    assert faults(state={"cluster_state": "fail", "cluster_slots_ok": "5461"}, nodes=NODES) == [
        "cluster_state is fail",
        "5461 of 16384 slots are covered",
    ]
    new = {"cluster_state": "fail", "cluster_slots_ok": "0", "cluster_slots_assigned": "0", "cluster_known_nodes": "1"}
    assert faults(state=new) == []
    assert len(faults(state={**new, "cluster_known_nodes": "2"})) == 2
    assert faults(state=WHOLE, nodes=NODES.replace("slave aaa", "slave,fail? aaa")) == [
        "the cluster takes 192.0.2.2:6379 for failed"
    ]
    assert faults(state=WHOLE, nodes=NODES.replace("slave aaa", "slave,fail,noaddr aaa")) == []


def test_its_answers() -> None:
    assert faults(latency=99.0) == []
    assert faults(latency=100.1) == ["a PING takes up to 100.1 ms, more than 100"]
    assert _health.faults(Seen(REPLICA, PRIMARY, latency=1e6), 2, 0) == []


def test_what_it_has_counted() -> None:
    info = {
        "run_id": "p1",
        "uptime_in_seconds": "10",
        "unexpected_error_replies": "2",
        "cmdstat_get": "calls=5,usec=1,usec_per_call=0.2,rejected_calls=3,failed_calls=9",
        "cmdstat_set": "calls=5,usec=1,usec_per_call=0.2,rejected_calls=4,failed_calls=0",
    }
    assert _health.counters(info) == Counters("p1", 10, 2, 7)
    assert _health.counters(info, ["SET"]) == Counters("p1", 10, 2, 3)
    assert _health.as_counters(Counters("p1", 10, 2, 7)._asdict()) == Counters("p1", 10, 2, 7)
    # Before 6.2.
    assert _health.counters({"cmdstat_get": "calls=5,usec=1,usec_per_call=0.2"}) == Counters()


class TestRises:
    """Errors that were not there before."""

    BEFORE = Counters("a", 100, 3, 200)

    def rises(self, after: Counters, later: Counters) -> list[str]:
        return _health.rises("it", self.BEFORE, after, later)

    def test_a_restart_starts_the_counters_anew(self) -> None:
        assert self.rises(Counters("b", 1), Counters("b", 2)) == []
        assert self.rises(Counters("b", 1), Counters("b", 2, 1)) == ["it met 1 errors in what its primary sent it"]

    def test_without_a_restart_they_go_on(self) -> None:
        assert self.rises(Counters("a", 110, 3, 220), Counters("a", 111, 3, 222)) == []
        assert self.rises(Counters("a", 110, 4, 220), Counters("a", 111, 4, 222)) == [
            "it met 1 errors in what its primary sent it"
        ]

    def test_a_start_that_nobody_asked_for(self) -> None:
        assert self.rises(Counters("b", 5), Counters("c", 1)) == ["it has started again by itself"]

    def test_rejected_calls_by_the_second(self) -> None:
        # Two a second were usual: four, and some, are no rise.
        assert self.rises(Counters("b", 5), Counters("b", 6, 0, 9)) == []
        assert self.rises(Counters("b", 5), Counters("b", 6, 0, 10)) == [
            "it rejects 10 calls a second; before the change it rejected 2"
        ]
        assert self.rises(Counters("b", 5), Counters("b", 7, 0, 10)) == []

    def test_of_both_servers(self) -> None:
        later = Seen({**REPLICA, "run_id": "r2"}, {**PRIMARY, "unexpected_error_replies": "1"})
        after = Seen({**REPLICA, "run_id": "r2"}, PRIMARY)
        before = [Counters("r1", 100), Counters("p1", 100)]
        assert _health.all_rises(before, after, after) == []
        assert _health.all_rises(before, after, later) == ["its primary met 1 errors in what its primary sent it"]
        # A primary that was none before the change is compared with itself.
        assert _health.all_rises(before[:1], after, after._replace(primary={**PRIMARY})) == []
        # A primary is its own.
        alone = Seen(PRIMARY, PRIMARY)
        assert _health.all_rises(before[1:], alone, alone) == []


def test_whom_a_replica_follows() -> None:
    assert _health.primary_of(REPLICA) == ("192.0.2.1", 6379)


@pytest.mark.parametrize(
    ("modules", "of_primary", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 2}, {"a": 1}, []),
        ({"a": 1, "b": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["its primary runs a 2, whose data 1 may not read"]),
        ({}, {"a": 0}, ["its primary runs a 0, whose data it could not read without that module"]),
    ],
)
def test_whose_data_a_server_could_not_read(
    modules: dict[str, int], of_primary: dict[str, int], said: list[str]
) -> None:
    assert _health.unreadable(modules, of_primary) == said
