# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a cluster's data, and of its clients, while its module goes from one release to the next.

The tests build on each other: release 2 reads what release 1 wrote, and not the other way round.
"""

from __future__ import annotations

import time

import pytest
from fleet_kit import LONGEST, Fleet, Watch, Writers, longest_gap, sensorwindow, until

LONGEST_GAP_S = 0.1
"""How long a shard may take no write. A handover takes 0.02 to 0.05 s. A restart of a primary without a handover shows
as 2 to 3 s here, and a failover by itself as more than the 15 s of cluster-node-timeout."""

CHANGED_ARGS = ["max-samples", "90000"]
"""Another change that needs a restart, for the tests after the one that brings release 2."""


def test_the_oracle_sees_a_lost_value(fleet: Fleet) -> None:
    """An acknowledged value that is deleted by hand is reported as lost, by its name; before, nothing is."""
    with Writers(fleet.told()) as writers:
        until(lambda: fleet.by_name[fleet.shards()[0][0]].client().dbsize() > 20, "they write")
        clean = writers.end()
        assert clean["lost"] == clean["diverged"] == 0, clean
        assert clean["copies"] == 3
        primary = fleet.by_name[fleet.shards()[0][0]].client()
        victims = [next(primary.scan_iter(f"{kind}:*", count=1000)) for kind in ("plain", "samples")]
        primary.delete(victims[0])
        one = writers.tell("check")
        assert (one["lost"], one["lost_first"], one["diverged"]) == (1, [victims[0].decode()], 0)
        samples = primary.execute_command("SENSORWINDOW.INFO", victims[1])
        assert samples
        primary.delete(victims[1])
        assert writers.tell("check")["lost"] > 10


@pytest.mark.parametrize(
    ("name", "more", "variables"),
    [
        ("OnLoad refuses its arguments", {"args": ["retention-ms", "never"]}, {}),
        ("a gate of the operator does not pass", {}, {"redis_rollout_gates": ["server.key_count < `0`"]}),
    ],
    ids=["onload", "gate"],
)
def test_a_bad_release_stops_at_the_canary(
    fleet: Fleet, name: str, more: dict[str, object], variables: dict[str, object]
) -> None:
    """One replica at most was ever changed, and runs release 1 again; all others are as they were."""
    with Watch(fleet.nodes) as watch:
        done = fleet.play("rollout", [sensorwindow(2, **more)], redis_rollout_gate_timeout=5, **variables)
    assert done.code != 0, f"{name}: {done.output}"
    again = watch.started_again()
    assert len(again) == (1 if variables else 0), watch.told()
    assert all(watch.first[node].role == "replica" for node in again)
    assert {node.name: node.versions() for node in fleet.nodes} == {
        node.name: {"sensorwindow": 10000} for node in fleet.nodes
    }
    assert fleet.shards() == watch.shards


def test_release_2_under_load(fleet: Fleet) -> None:
    """No acknowledged write is lost, no copy differs, no shard is long away, and no primary is ever restarted."""
    since = time.time()
    with Writers(fleet.told()) as writers, Watch(fleet.nodes) as watch:
        done = fleet.play("rollout", [sensorwindow(2)], redis_rollout_shards_at_once=3)
        assert done.code == 0, done.output
        fleet.settle()
        found = writers.end()
    print(f"rollout: {done.seconds:.1f} s, {found}")
    assert found["acknowledged"] > 1000
    assert (found["lost"], found["diverged"], found["copies"]) == (0, 0, 3), found
    assert {node.name: node.versions() for node in fleet.nodes} == {
        node.name: {"sensorwindow": 20000} for node in fleet.nodes
    }
    assert sorted(watch.started_again()) == sorted(fleet.by_name), watch.told()
    assert all(watch.went_down_as(node.name) == ["replica"] for node in fleet.nodes), watch.told()
    assert max(watch.worst.values()) <= 1, watch.told()
    assert not fleet.away_together(since)
    assert longest_gap(found) < LONGEST_GAP_S, found


def test_no_change_touches_nothing(fleet: Fleet) -> None:
    """No start, no failover, nothing reported as changed."""
    with Watch(fleet.nodes) as watch:
        done = fleet.play("rollout", [sensorwindow(2)], redis_rollout_shards_at_once=3)
    assert done.code == 0, done.output
    assert set(done.changed().values()) == {0}, done.output
    assert not watch.changes, watch.told()


def test_a_replica_killed_in_the_middle_stops_the_run(fleet: Fleet) -> None:
    """After the first host is changed, the replica of another shard goes for good. The run stops; the next one, after
    mending, finishes. No acknowledged write is lost in all that.
    """
    wanted = [sensorwindow(2, args=CHANGED_ARGS)]
    with Writers(fleet.told()) as writers, Watch(fleet.nodes) as watch:

        def kill() -> None:
            until(watch.started_again, "a first host is changed", LONGEST)
            shard = next(shard for shard in watch.shards if watch.started_again()[0] not in shard)
            killed.append(shard)
            fleet.by_name[shard[1]].keep_down()

        killed: list[tuple[str, ...]] = []
        try:
            done = fleet.play_and(kill, "rollout", wanted, redis_rollout_gate_timeout=10)
            assert done.code != 0, done.output
            primary, replica = killed[0]
            first = watch.started_again()[0]
            own = next(shard for shard in watch.shards if first in shard)
            others = {node for shard in watch.shards if shard != own for node in shard} - {replica}
            assert not others & set(watch.started_again()), f"{watch.told()}\n{done.output}"
            assert max(watch.worst.values()) <= 1, watch.told()
            assert fleet.by_name[primary].state() == watch.first[primary], watch.told()
        finally:
            for _primary, replica in killed:
                fleet.by_name[replica].mend()
        fleet.settle()
        done = fleet.play("rollout", wanted)
        assert done.code == 0, done.output
        fleet.settle()
        found = writers.end()
    assert (found["lost"], found["diverged"], found["copies"]) == (0, 0, 3), found
    assert set(watch.started_again()) == set(fleet.by_name), watch.told()
    for node in fleet.nodes:
        assert node.client().execute_command("MODULE LIST")
        assert "max-samples 90000" in node.sh("grep ^loadmodule /etc/redis/redis.conf")
