# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who follows whom, from what servers tell; and the order that follows from it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _topology, _waves
from ansible_collections.edgeops.redis_modules.plugins.module_utils._waves import Wishes

NODES = """\
aaa 192.0.2.1:6379@16379,one myself,master - 0 0 1 connected 0-5460 [93->-bbb]
bbb 192.0.2.2:6379@16379 master - 0 1 2 connected 5461-10922 16383
ccc 192.0.2.3:6379@16379 slave aaa 0 1 1 connected
ddd 192.0.2.4:6379@16379 slave bbb 0 1 2 connected
eee :0@0 master,noaddr - 0 0 3 disconnected
"""


def server(number: int, **more: Any) -> dict[str, Any]:
    """Return what the server at 192.0.2.NUMBER tells: a primary that nobody follows, unless more is said."""
    return {
        "running": True,
        "error": "",
        "addresses": [f"192.0.2.{number}"],
        "port": 6379,
        "version": "7.0.15",
        "primary": "",
        "link_up": True,
        "syncing": False,
        "priority": 100,
        "offset": 10,
        "lacks": [],
        "replicas": [],
        "sentinels": 0,
        "cluster": False,
        "cluster_state": "",
        "node_id": "",
        "nodes": "",
        **more,
    }


def followed_by(*numbers: int, state: str = "online") -> dict[str, Any]:
    """Return a primary's word on its replicas."""
    return {"replicas": [{"ip": f"192.0.2.{n}", "port": "6379", "state": state} for n in numbers]}


def following(number: int) -> dict[str, Any]:
    """Return a replica's word on its primary."""
    return {"primary": f"192.0.2.{number} 6379"}


def cluster(nodes: str = NODES, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the four hosts of a cluster: two shards of two."""
    ids = {"one": "aaa", "two": "bbb", "three": "ccc", "four": "ddd"}
    return {
        host: server(number, cluster=True, node_id=node, nodes=nodes, **more.get(host, {}))
        for number, (host, node) in enumerate(ids.items(), start=1)
    }


def steps(told: dict[str, Any], **more: Any) -> list[list[str]]:
    """Return the waves of a plan, each step as HOST or HOST<HEIR."""
    planned = _waves.plan(told, Wishes(**more))
    return [[step.host + (f"<{step.handover_to}" if step.handover_to else "") for step in w] for w in planned.waves]


STOPPED = {"running": False, "error": "refused", "addresses": ["192.0.2.2"], "port": 6379, "primary": "192.0.2.1 6379"}
"""What a stopped replica's redis.conf tells."""


class TestParse:
    """What servers answer."""

    def test_nodes(self) -> None:
        one, two, three, _four, gone = _topology.parse_nodes(NODES + "\nnonsense\n")
        assert (one.id, one.where, one.slots, one.primary) == ("aaa", "192.0.2.1:6379", ("0-5460",), "")
        assert two.slots == ("5461-10922", "16383")
        assert (three.primary, three.connected) == ("aaa", True)
        assert "noaddr" in gone.flags
        assert not gone.connected

    def test_replicas_in_their_order(self) -> None:
        info = {f"slave{n}": f"ip=192.0.2.{n},port=6379,state=online,offset=5,lag=0" for n in (10, 2)}
        first, second = _topology.parse_replicas({**info, "slave_priority": "100", "slave_repl_offset": "1"})
        assert (first["ip"], second["ip"], first["offset"]) == ("192.0.2.2", "192.0.2.10", "5")


class TestShards:
    """Servers that hold the same data."""

    def test_a_server_by_itself(self) -> None:
        (shard,) = _topology.shards({"one": server(1), "off": {"running": False}, "gone": {}})
        assert (shard.kind, shard.primary, shard.replicas) == (
            "standalone",
            _topology.Copy("one", "192.0.2.1:6379", "primary"),
            (),
        )

    def test_a_primary_its_replicas_and_theirs(self) -> None:
        told = {
            "one": server(1, **followed_by(2)),
            "two": server(2, **following(1), **followed_by(3)),
            "three": server(3, **following(2), link_up=False),
        }
        (shard,) = _topology.shards(told)
        assert shard.kind == "replication"
        assert shard.primary is not None
        assert shard.primary.host == "one"
        assert [(copy.host, copy.trouble) for copy in shard.replicas] == [
            ("two", ""),
            ("three", "its link to the primary is down"),
        ]

    def test_by_name_and_by_another_port(self) -> None:
        told = {"one": server(1, port=7000), "two": server(2, primary="one 7000"), "three": server(3, primary="one 1")}
        kinds = [(shard.primary.name if shard.primary else "", len(shard.replicas)) for shard in _topology.shards(told)]
        assert kinds == [("one", 1), ("one:1", 1)]

    def test_what_the_inventory_does_not_hold(self) -> None:
        (shard,) = _topology.shards({"one": server(1, **followed_by(9, state="wait_bgsave"))})
        assert [(copy.host, copy.where, copy.trouble) for copy in shard.replicas] == [
            ("", "192.0.2.9:6379", "it is not in sync")
        ]
        (shard,) = _topology.shards({"two": server(2, **following(8))})
        assert shard.primary == _topology.Copy("", "192.0.2.8:6379", "primary")

    def test_two_that_follow_each_other_are_not_lost(self) -> None:
        found = _topology.shards({"one": server(1, **following(2)), "two": server(2, **following(1))})
        assert {copy.host for shard in found for copy in shard.copies} == {"one", "two"}

    def test_sentinels(self) -> None:
        (shard,) = _topology.shards({"one": server(1, **followed_by(2)), "two": server(2, **following(1), sentinels=3)})
        assert shard.kind == "sentinel"

    def test_a_cluster(self) -> None:
        one, two = _topology.shards(cluster())
        assert (one.kind, one.slots, [copy.host for copy in one.copies]) == ("cluster", "0-5460", ["three", "one"])
        assert (two.slots, [copy.host for copy in two.copies]) == ("5461-10922 16383", ["four", "two"])

    def test_a_failed_node_and_one_outside(self) -> None:
        nodes = NODES.replace("slave aaa", "slave,fail aaa") + "fff 192.0.2.9:6379@16379 slave bbb 0 1 2 connected\n"
        one, two = _topology.shards(cluster(nodes))
        assert one.replicas[0].trouble == "the cluster takes it for failed"
        assert [copy.name for copy in two.replicas] == ["four", "192.0.2.9:6379"]

    @pytest.mark.parametrize(("field", "value"), [("syncing", True), ("link_up", False), ("priority", 0)])
    def test_who_can_not_take_over(self, field: str, value: Any) -> None:
        assert _topology.trouble(server(1, **{field: value}))
        assert not _topology.trouble(server(1))


class TestWaves:
    """The order."""

    def test_standalone_servers_after_a_canary(self) -> None:
        told = {f"h{n}": server(n) for n in range(20)}
        assert [len(wave) for wave in _waves.plan(told).waves] == [1, 2, 6, 11]
        assert [len(wave) for wave in _waves.plan(told, Wishes(["3", "50%"])).waves] == [3, 10, 7]
        assert [len(wave) for wave in _waves.plan(told, Wishes(["7"])).waves] == [7, 7, 6]

    def test_hosts_that_do_not_run_go_first(self) -> None:
        told = {"one": server(1), "off": {"running": False}, "two": server(2), "new": {"running": False}}
        assert steps(told) == [["off", "new"], ["one"], ["two"]]
        assert steps({"one": server(1), "two": STOPPED}) == [["two"], ["one"]]

    def test_replicas_before_their_primary(self) -> None:
        told = {
            "one": server(1, **followed_by(2, 3)),
            "two": server(2, **following(1)),
            "three": server(3, **following(1)),
        }
        assert steps(told) == [["two"], ["three"], ["one<two"]]

    def test_shards_side_by_side_after_the_canary(self) -> None:
        assert steps(cluster()) == [["three"], ["one<three"], ["four"], ["two<four"]]
        assert steps(cluster(), shards_at_once=2) == [["three"], ["four"], ["one<three", "two<four"]]
        told = {**cluster(), "alone": server(8), "other": server(9)}
        assert steps(told, shards_at_once=2) == [["alone"], ["other", "three", "four"], ["one<three", "two<four"]]

    def test_each_host_is_in_one_wave(self) -> None:
        told = {**cluster(), **{f"h{n}": server(20 + n) for n in range(9)}, "off": {"running": False}}
        hosts = [step.host for wave in _waves.plan(told, Wishes(shards_at_once=2)).waves for step in wave]
        assert sorted(hosts) == sorted(told)

    @pytest.mark.parametrize(
        ("told", "command"),
        [
            (cluster(), "CLUSTER FAILOVER"),
            ({"one": server(1, **followed_by(2), sentinels=3), "two": server(2, **following(1))}, "SENTINEL FAILOVER"),
            ({"one": server(1, **followed_by(2)), "two": server(2, **following(1))}, "FAILOVER"),
        ],
    )
    def test_how_a_primary_hands_over(self, told: dict[str, Any], command: str) -> None:
        planned = _waves.plan(told)
        assert {step.command for wave in planned.waves for step in wave} == {"", command}
        assert not planned.faults

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            (
                {"one": server(1, **followed_by(9))},
                "no replica could take over (192.0.2.9:6379: the inventory does not",
            ),
            (
                {"one": server(1, **followed_by(2)), "two": server(2, **following(1), syncing=True)},
                "no replica could take over (two: it is taking over its primary's data)",
            ),
            (
                {"one": server(1, **followed_by(2), version="6.0.16"), "two": server(2, **following(1))},
                "Redis 6.0.16 has no command to hand over",
            ),
            (cluster(NODES.replace("slave aaa", "slave bbb")), "cluster 0-5460 of one: it has no replica"),
            (cluster(NODES.replace("myself,master", "myself,master,fail?")), "takes it for failed"),
            ({"one": server(1), "gone": {}}, "gone: it was not reached"),
            ({"one": server(1), "two": STOPPED}, "no replica could take over (two: it does not run)"),
        ],
    )
    def test_what_would_leave_a_shard_alone_is_refused(self, told: dict[str, Any], words: str) -> None:
        (fault,) = _waves.plan(told).faults
        assert words in fault
        assert f"refused: {fault}" in _waves.lines(_waves.plan(told))

    def test_what_is_told_beside(self) -> None:
        told = {
            "one": server(1, **followed_by(2, 3, 9)),
            "two": server(2, **following(1), link_up=False),
            "three": server(3, **following(1)),
        }
        planned = _waves.plan(told)
        assert planned.faults == []
        assert planned.warnings == [
            "replication of one: the replica 192.0.2.9:6379 is not in the inventory and keeps the modules that it has",
            "replication of one: two could not take over: its link to the primary is down",
        ]
        assert _waves.lines(planned)[2] == (
            "wave 3: one (replication of one), after it has handed over to three (FAILOVER)"
        )
        assert steps({"two": server(2, **following(8))}) == [["two"]]

    @pytest.mark.parametrize("sizes", [[], ["0"], ["110%"], ["some"], [None]])
    def test_sizes_that_are_none(self, sizes: list[Any]) -> None:
        with pytest.raises(_waves.WavesError):
            _waves.plan({}, Wishes(sizes))

    def test_a_server_that_a_package_has_just_started_is_nobody_s_yet(self) -> None:
        told = {"one": server(1), "new": server(2), "newer": server(3)}
        assert steps(told, fresh=("new", "newer")) == [["new", "newer"], ["one"]]
        # It may already follow somebody, as its own redis.conf said.
        told = {"one": server(1, **followed_by(2)), "new": server(2, **following(1))}
        assert steps(told, fresh=("new",)) == [["new"], ["one<new"]]

    def test_a_server_that_runs_and_does_not_answer_is_refused(self) -> None:
        silent = {
            "running": False,
            "process": True,
            "error": "wrong password",
            "addresses": [],
            "port": 1,
            "primary": "",
        }
        told = {"one": server(1), "silent": silent}
        (fault,) = _waves.plan(told).faults
        assert "silent: its server runs and does not answer" in fault
        assert "wrong password" in fault
        assert _waves.plan(told, Wishes(unseen=True)).faults == []
        assert steps(told, unseen=True) == [["one"], ["silent"]]

    @pytest.mark.parametrize(
        "told",
        [
            cluster(NODES.replace("slave aaa", "slave bbb")),
            {"one": server(1, **followed_by(2), version="6.0.16"), "two": server(2, **following(1))},
        ],
    )
    def test_who_can_not_hand_over_is_changed_where_it_is_if_asked(self, told: dict[str, Any]) -> None:
        assert "redis_rollout_without_handover" in _waves.plan(told).faults[0]
        planned = _waves.plan(told, Wishes(restart=True))
        assert planned.faults == []
        assert "one" in [step.host for wave in planned.waves for step in wave if not step.handover_to]
        # One that has a command and nobody who could take over is another matter.
        sick = {"one": server(1, **followed_by(2)), "two": server(2, **following(1), link_up=False)}
        assert _waves.plan(sick, Wishes(restart=True)).faults

    def test_where_the_heir_is_and_how_many_copies_there_are(self) -> None:
        told = {
            "one": server(1, **followed_by(2, 8, 9)),
            "two": server(2, **following(1), addresses=["192.0.2.2", "2001:db8::2"], port=7000),
        }
        told["one"]["replicas"][2]["state"] = "wait_bgsave"
        told["one"]["replicas"][0]["port"] = "7000"
        replica, primary = (step for wave in _waves.plan(told).waves for step in wave)
        assert (replica.addresses, replica.port, replica.replicas) == ((), 0, 2)
        assert (primary.addresses, primary.port, primary.replicas) == (("192.0.2.2", "2001:db8::2"), 7000, 2)

    def test_a_node_of_a_cluster_without_slots_stands_alone(self) -> None:
        told = {
            "one": server(1, cluster=True, node_id="aaa", nodes="aaa :6379@16379 myself,master - 0 0 0 connected\n")
        }
        assert steps(told) == [["one"]]
        assert _waves.plan(told).faults == []

    def test_an_heir_on_the_same_host_may_be_known_by_its_loopback(self) -> None:
        told = {
            "a": server(1, replicas=[{"ip": "127.0.0.1", "port": "6392", "state": "online"}]),
            "b": server(1, port=6392, primary="127.0.0.1 6379"),
        }
        (_replica,), (primary,) = _waves.plan(told).waves
        assert primary.addresses == ("192.0.2.1", "127.0.0.1", "::1")

    def test_a_module_is_withheld_until_all_copies_have_it(self) -> None:
        told = {
            "one": server(1, **followed_by(2), lacks=["new"]),
            "two": server(2, **following(1)),
            "alone": server(3, lacks=["new"]),
        }
        planned = _waves.plan(told, Wishes(users=True))
        assert {step.host: step.withheld for wave in planned.waves for step in wave} == {
            "alone": (),
            "one": ("new",),
            "two": ("new",),
        }
        assert "new withheld from clients until all copies have it" in "\n".join(_waves.lines(planned))
        # Without users there is nobody to withhold it from, and that is said.
        planned = _waves.plan(told)
        assert not any(step.withheld for wave in planned.waves for step in wave)
        assert [warning for warning in planned.warnings if "replication of one: new is new to it" in warning]
        told["one"]["lacks"].clear()
        assert not _waves.plan(told).warnings

    def test_a_module_that_leaves_is_withheld_before_the_first_copy_loses_it(self) -> None:
        told = {
            "one": server(1, **followed_by(2), leaves=["old"]),
            "two": server(2, **following(1)),
            "alone": server(3, leaves=["old"]),
        }
        planned = _waves.plan(told)
        steps = {step.host: (step.leaving, step.role) for wave in planned.waves for step in wave}
        assert steps == {"alone": ((), ""), "one": (("old",), "primary"), "two": (("old",), "replica")}
        assert "old withheld from clients before the first copy loses it" in "\n".join(_waves.lines(planned))


class TestSettled:
    """Hosts that are as wanted: nothing of them changes, and they are copies and heirs of others all the same."""

    def test_a_settled_host_gets_no_step(self) -> None:
        told = {
            "one": server(1, **followed_by(2, 3)),
            "two": server(2, **following(1)),
            "three": server(3, **following(1)),
        }
        assert steps(told, settled=("two",)) == [["three"], ["one<two"]]
        assert steps(told, settled=("one",)) == [["two"], ["three"]]
        assert steps(told, settled=("two", "three")) == [["one<two"]]
        assert steps(told, settled=tuple(told)) == []
        assert steps(cluster(), settled=("one", "three")) == [["four"], ["two<four"]]
        assert steps(cluster(), settled=("one", "four"), shards_at_once=2) == [["three"], ["two<four"]]

    def test_it_counts_as_a_copy_and_is_asked_where_it_is(self) -> None:
        told = {
            "one": server(1, **followed_by(2, 3), lacks=["new"], leaves=["old"]),
            "two": server(2, **following(1), addresses=["192.0.2.2", "2001:db8::2"]),
            "three": server(3, **following(1)),
        }
        three, one = (step for wave in _waves.plan(told, Wishes(users=True, settled=("two",))).waves for step in wave)
        assert (three.replicas, three.withheld, three.leaving) == (2, ("new",), ("old",))
        assert (one.handover_to, one.addresses, one.port) == ("two", ("192.0.2.2", "2001:db8::2"), 6379)
        # Without its word, it would be one outside of the inventory.
        del told["two"]
        warnings = _waves.plan(told).warnings
        assert [said for said in warnings if "the replica 192.0.2.2:6379 is not in the inventory" in said]

    @pytest.mark.parametrize(
        "sick",
        [
            {"one": server(1, **followed_by(2)), "two": server(2, **following(1), link_up=False)},
            {"one": server(1, **followed_by(2), version="6.0.16"), "two": server(2, **following(1))},
            {"one": server(1, **followed_by(2, 9)), "two": server(2, **following(1), syncing=True)},
            {"one": server(1, **followed_by(9), lacks=["new"])},
            {
                host: told
                for host, told in cluster(NODES.replace("myself,master", "myself,master,fail?")).items()
                if host in ("one", "three")
            },
        ],
    )
    def test_a_shard_of_settled_hosts_alone_is_nobodys_business(self, sick: dict[str, Any]) -> None:
        assert _waves.plan(sick).faults or _waves.plan(sick).warnings
        told = {**sick, "alone": server(8)}
        planned = _waves.plan(told, Wishes(settled=tuple(sick)))
        # Of the cluster, the other shard is not in the inventory, so nothing of it changes either.
        assert (planned.faults, planned.warnings) == ([], [])
        assert [[step.host for step in wave] for wave in planned.waves] == [["alone"]]

    def test_one_that_is_to_change_makes_the_shard_that_of_this_run(self) -> None:
        told = {"one": server(1, **followed_by(2)), "two": server(2, **following(1), link_up=False)}
        (fault,) = _waves.plan(told, Wishes(settled=("two",))).faults
        assert "no replica could take over (two: its link to the primary is down)" in fault

    def test_the_shares_of_waves_are_those_of_the_hosts_that_change(self) -> None:
        told = {f"h{n}": server(n) for n in range(100)}
        settled = tuple(f"h{n}" for n in range(100) if n % 10)
        assert [len(wave) for wave in _waves.plan(told).waves] == [1, 10, 30, 59]
        assert steps(told, settled=settled, sizes=["1", "50%", "100%"]) == [
            ["h0"],
            ["h10", "h20", "h30", "h40", "h50"],
            ["h60", "h70", "h80", "h90"],
        ]

    def test_a_settled_standalone_server_is_no_canary(self) -> None:
        told = {**cluster(), "alone": server(8), "other": server(9)}
        assert steps(told, settled=("alone",)) == [["other"], ["three"], ["one<three"], ["four"], ["two<four"]]
        assert steps(told, settled=("alone", "other"))[0] == ["three"]
        # What does not run is not settled, and goes first as ever.
        assert steps({**told, "off": {"running": False}}, settled=("alone", "other"))[0] == ["off"]

    def test_who_was_not_reached_or_does_not_answer_is_a_fault_all_the_same(self) -> None:
        silent = {
            "running": False,
            "process": True,
            "error": "wrong password",
            "addresses": [],
            "port": 1,
            "primary": "",
        }
        told = {"one": server(1), "gone": {}, "silent": silent}
        faults = _waves.plan(told, Wishes(settled=("one",))).faults
        assert [fault.split(":")[0] for fault in faults] == ["gone", "silent"]


class TestProgress:
    """Whether the next wave begins, and how far it came."""

    WAVES: ClassVar[list[list[dict[str, Any]]]] = [
        [{"host": "one", "wave": 1}],
        [{"host": "two", "wave": 2}, {"host": "three", "wave": 2}],
        [{"host": "four", "wave": 3}],
    ]

    def test_a_wave_begins_when_all_before_it_have_passed(self) -> None:
        assert _waves.halt(self.WAVES, 1, ["one", "two", "three", "four"]) == ""
        assert _waves.halt(self.WAVES, 2, ["two", "three", "four"]) == ""
        assert _waves.halt(self.WAVES, 3, ["three", "four"]) == "three did not pass"
        # Who has failed before any wave began stops all of them; who is not in the plan stops none.
        assert _waves.halt(self.WAVES, 1, ["one", "two", "three", "four"], ["four", "five"]) == "four did not pass"

    def test_it_stops_on_purpose(self) -> None:
        left = ["two", "three", "four"]
        assert "stop_after is 1" in _waves.halt(self.WAVES, 2, left, stop_after=1)
        assert _waves.halt(self.WAVES, 1, left, stop_after=1) == ""
        assert _waves.halt(self.WAVES, 2, left, stop_after=2) == ""
        assert "file /pause" in _waves.halt(self.WAVES, 2, left, pause_file="/pause")
        # The first wave is what the operator has just asked for.
        assert _waves.halt(self.WAVES, 1, left, pause_file="/pause") == ""

    def test_how_far_it_came(self) -> None:
        assert _waves.progress(self.WAVES, [], {"one": ""}) == ["4 of 4 hosts passed all gates"]
        assert _waves.progress(self.WAVES, ["four", "three"], {"three": "", "four": "three did not pass"}) == [
            "2 of 4 hosts passed all gates",
            "stopped before wave 3 of 3: three did not pass",
            "not reached, so as before: four",
        ]
        # Whoever fails in the last wave stops nothing more.
        assert _waves.progress(self.WAVES, ["four"], {}) == ["3 of 4 hosts passed all gates"]


def test_instances_of_one_host_may_follow_each_other_by_its_loopback() -> None:
    told = {
        "a": server(1, port=6391, replicas=[{"ip": "127.0.0.1", "port": "6392", "state": "online"}]),
        "b": server(1, port=6392, primary="127.0.0.1 6391"),
        "other": server(2, port=6391),
    }
    found = _topology.shards(told)
    assert [(shard.kind, [copy.name for copy in shard.copies]) for shard in found] == [
        ("replication", ["b", "a"]),
        ("standalone", ["other"]),
    ]
