# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way a role goes, to whom, and what Sentinel will do."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _handover, _topology

HELLO = "192.0.2.21,26379,5ab3,7,pumps,192.0.2.1,6379,7"
HEIR = "192.0.2.2 6379"


def replica(number: int, priority: int = 100, flags: str = "slave", age: int = 600) -> dict[str, str]:
    """Return what Sentinel knows of the replica at 192.0.2.NUMBER."""
    return {
        "ip": f"192.0.2.{number}",
        "port": "6379",
        "slave-priority": str(priority),
        "flags": flags,
        "info-refresh": str(age),
    }


class TestHello:
    """What Sentinels say every two seconds."""

    def test_it_is_read(self) -> None:
        assert _handover.parse_hello(HELLO) == _handover.Hello("192.0.2.21", 26379, "5ab3", "pumps", "192.0.2.1 6379")

    @pytest.mark.parametrize("message", ["", "hello", HELLO + ",1", HELLO.replace("26379", "x"), "a,b,c,d,e,f,g,h"])
    def test_somebody_elses_message(self, message: str) -> None:
        assert _handover.parse_hello(message) is None

    def test_the_name(self) -> None:
        hellos = [_handover.Hello("a", 1, "x", "pumps", ""), _handover.Hello("b", 1, "y", "pumps", "")]
        assert _handover.name_of(hellos) == "pumps"
        with pytest.raises(_handover.HandoverError, match=r"several names \(mills, pumps\)"):
            _handover.name_of([*hellos, _handover.Hello("c", 1, "z", "mills", "")])


@pytest.mark.parametrize(
    ("info", "sentinels", "command"),
    [
        ({"cluster_enabled": "1", "redis_version": "6.0.16"}, 0, "CLUSTER FAILOVER"),
        ({"redis_version": "4.0.14"}, 3, "SENTINEL FAILOVER"),
        ({"redis_version": "7.0.15"}, 1, "SENTINEL FAILOVER"),
        ({"redis_version": "6.2.0"}, 0, "FAILOVER"),
        ({"redis_version": "6.0.16"}, 0, ""),
    ],
)
def test_the_way(info: dict[str, str], sentinels: int, command: str) -> None:
    assert _handover.way(info, sentinels) == command


def test_whom_a_server_follows() -> None:
    follows = {"role": "slave", "master_host": "192.0.2.2", "master_port": "6379", "cluster_enabled": "1"}
    assert _handover.primary_of(follows) == HEIR
    assert _handover.primary_of({**follows, "role": "master"}) == ""
    assert _handover.is_one_of(HEIR, ["2001:db8::2", "192.0.2.2"], 6379)
    assert not _handover.is_one_of(HEIR, ["192.0.2.2"], 6380)
    assert not _handover.is_one_of(HEIR, ["192.0.2.22"], 6379)


@pytest.mark.parametrize(
    ("link", "syncing", "up"), [("up", "0", True), ("up", "1", False), ("down", "0", False), ("", "0", False)]
)
def test_the_link(link: str, syncing: str, up: bool) -> None:
    assert _handover.link_up({"master_link_status": link, "master_sync_in_progress": syncing}) is up


class TestHeir:
    """The primary has to know it."""

    def listed(self, state: str = "online") -> list[dict[str, str]]:
        return [{"ip": f"192.0.2.{n}", "port": "6379", "state": state, "offset": str(n)} for n in (2, 3)]

    def test_by_any_of_its_addresses(self) -> None:
        assert _handover.heir_in(self.listed(), ["2001:db8::2", "192.0.2.2"], 6379) == "192.0.2.2"

    @pytest.mark.parametrize(
        ("address", "port", "state", "why"),
        [
            ("192.0.2.9", 6379, "online", "192.0.2.9 6379 does not follow this server; who does: 192.0.2.2 6379, "),
            ("192.0.2.2", 6380, "online", "192.0.2.2 6380 does not follow"),
            ("192.0.2.2", 6379, "wait_bgsave", r"not in sync yet \(wait_bgsave\)"),
        ],
    )
    def test_nobody_who_can_take_over(self, address: str, port: int, state: str, why: str) -> None:
        with pytest.raises(_handover.HandoverError, match=why) as refused:
            _handover.heir_in(self.listed(state), [address], port)
        assert not refused.value.changed

    def test_nobody_at_all(self) -> None:
        with pytest.raises(_handover.HandoverError, match="who does: nobody"):
            _handover.heir_in([], ["192.0.2.2"], 6379)

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("bbb 192.0.2.2:6379@16379 slave ccc 0 1 1 connected", "does not know 192.0.2.2 6379 as a replica"),
            ("bbb 192.0.2.2:6379@16379 slave,fail? aaa 0 1 1 connected", "takes 192.0.2.2 6379 for failed"),
            ("bbb 192.0.2.2:6379@16379 slave aaa 0 1 1 disconnected", "takes 192.0.2.2 6379 for failed"),
            ("bbb 192.0.2.3:6379@16379 slave aaa 0 1 1 connected", "does not know 192.0.2.2 6379"),
        ],
    )
    def test_in_a_cluster(self, line: str, why: str) -> None:
        healthy = _topology.parse_nodes("bbb 192.0.2.2:6379@16379 slave aaa 0 1 1 connected")
        _handover.refuse_node(healthy, "aaa", ["192.0.2.2"], 6379)
        nodes = _topology.parse_nodes(line)
        with pytest.raises(_handover.HandoverError, match=why):
            _handover.refuse_node(nodes, "aaa", ["192.0.2.2"], 6379)

    def test_what_it_has_acknowledged(self) -> None:
        assert _handover.acknowledged(self.listed(), HEIR) == 2
        assert _handover.acknowledged(self.listed(), "192.0.2.9 6379") == -1


class TestOffsets:
    """What the new primary was promoted with."""

    def test_how_far(self) -> None:
        both = {"master_repl_offset": "10", "slave_repl_offset": "9"}
        assert _handover.offset({**both, "role": "master"}) == 10
        assert _handover.offset({**both, "role": "slave"}) == 9
        assert _handover.offset({"role": "master"}) == 0

    @pytest.mark.parametrize(
        ("last", "lost"),
        [(500, 0), (499, 0), (514, 0), (515, 15), (600, 100)],
    )
    def test_what_is_missing(self, last: int, lost: int) -> None:
        former = {"role": "master", "master_replid": "abc", "master_repl_offset": str(last)}
        assert _handover.missing(former, {"master_replid2": "abc", "second_repl_offset": "501"}) == lost

    def test_nobodys_heir(self) -> None:
        assert _handover.missing({"master_replid": "abc"}, {"master_replid2": "def", "second_repl_offset": "1"}) == -1


class TestSentinel:
    """Whom it would choose."""

    def test_tables(self) -> None:
        reply: list[Any] = [[b"ip", b"192.0.2.2", b"port", b"6379"]]
        assert _handover.tables(reply) == [{"ip": "192.0.2.2", "port": "6379"}]

    @pytest.mark.parametrize(
        ("heir", "others", "first"),
        [
            (100, (), True),
            (100, (100,), False),
            (1, (100, 2), True),
            (1, (1,), False),
            (100, (0,), True),
            (0, (100,), False),
            (0, (), False),
        ],
    )
    def test_who_comes_first(self, heir: int, others: tuple[int, ...], first: bool) -> None:
        replicas = [replica(2, heir), *(replica(3 + n, priority) for n, priority in enumerate(others))]
        assert _handover.comes_first(replicas, HEIR) is first

    def test_a_stranger(self) -> None:
        with pytest.raises(_handover.HandoverError, match=r"not know the replica 192.0.2.2 6379; it knows 192.0.2.3"):
            _handover.comes_first([replica(3)], HEIR)

    def test_who_can_not_be_made_first(self) -> None:
        _handover.refuse_priority([replica(2), replica(3)], HEIR)
        with pytest.raises(_handover.HandoverError, match="has the replica-priority 0"):
            _handover.refuse_priority([replica(2, 0)], HEIR)
        with pytest.raises(_handover.HandoverError, match=r"192.0.2.3 6379 has the replica-priority 1"):
            _handover.refuse_priority([replica(2), replica(3, 1)], HEIR)

    @pytest.mark.parametrize(
        ("primary", "its", "trouble"),
        [
            ("master", "slave", ""),
            ("master,failover_in_progress", "slave", "a failover is under way already"),
            ("master,s_down", "slave", "it takes this server for master,s_down"),
            ("master", "slave,disconnected", "it takes the heir for slave,disconnected"),
        ],
    )
    def test_its_trouble(self, primary: str, its: str, trouble: str) -> None:
        assert _handover.sentinel_trouble({"flags": primary}, {"flags": its}) == trouble

    def test_whom_it_has_chosen(self) -> None:
        assert _handover.promoted([replica(2), replica(3, flags="slave,promoted")]) == "192.0.2.3 6379"
        assert _handover.promoted([replica(2)]) == ""

    @pytest.mark.parametrize(("age", "calm"), [(0, False), (549, False), (550, True), (680, True), (681, False)])
    def test_the_calm_moment(self, age: int, calm: bool) -> None:
        assert _handover.is_calm(_handover.age(replica(2, age=age))) is calm


def test_who_is_the_primary_now() -> None:
    follows = {"role": "slave", "master_host": "192.0.2.2", "master_port": "6379", "master_link_status": "down"}
    assert _handover.standing({"role": "master"}, None, HEIR) == (
        "Now this server is a primary, and 192.0.2.2 6379 does not answer"
    )
    assert _handover.standing(follows, {"role": "master"}, HEIR) == (
        "Now this server follows 192.0.2.2 6379, with the link down, and 192.0.2.2 6379 is a primary"
    )


def test_sentinel_knows_its_primary_once_a_failover_is_over_and_the_new_one_has_answered():
    assert _handover.is_settled({"runid": "r1", "flags": "master"})
    assert _handover.is_settled({"runid": "r1", "flags": "s_down,master"})
    assert not _handover.is_settled({"runid": "", "flags": "master"})
    assert not _handover.is_settled({"runid": "r1", "flags": "master,failover_in_progress"})
    assert not _handover.is_settled({})
