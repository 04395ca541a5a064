# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a primary's data, and of its clients, while its module goes from one release to the next.

Three Sentinels decide who is primary. The tests build on each other, as release 1 does not read what release 2 wrote.
"""

from __future__ import annotations

import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from fleet_kit import LONGEST, ROOT, Done, Fleet, Node, Watch, Writers, longest_gap, sensorwindow, until
from redis.backoff import NoBackoff
from redis.retry import Retry

LONGEST_GAP_S = 1.0
"""How long no write may be taken. A primary that goes without a handover is away for the 3 s of down-after-milliseconds
and the election."""

CUT_S = 25
"""How long a host is cut off; then it mends itself."""

CUT = """\
table inet cut {
  chain in {
    type filter hook input priority -300; policy drop;
    iif lo accept
  }
  chain out {
    type filter hook output priority -300; policy drop;
    oif lo accept
  }
}
"""


def test_the_oracle_sees_a_copy_that_differs(fleet: Fleet) -> None:
    """A value changed on one replica only is reported; it is none that was lost."""
    with Writers(fleet.told()) as writers:
        until(lambda: fleet.by_name[fleet.shards()[0][0]].client().dbsize() > 20, "they write")
        clean = writers.end()
        assert clean["lost"] == clean["diverged"] == 0, clean
        assert clean["copies"] == 2
        replica = fleet.by_name[fleet.shards()[0][1]].client()
        replica.config_set("replica-read-only", "no")
        key = next(replica.scan_iter("plain:*", count=1000))
        replica.set(key, "other")
        replica.config_set("replica-read-only", "yes")
        found = writers.tell("check")
        assert (found["lost"], found["diverged"]) == (0, 1)
        assert key.decode() in found["diverged_first"][0]


def test_release_2_under_load(fleet: Fleet) -> None:
    """No acknowledged write is lost, no copy differs, the primary is handed over, and never restarted as one."""
    since = time.time()
    with Writers(fleet.told()) as writers, Watch(fleet.nodes) as watch:
        done = fleet.play("rollout", [sensorwindow(2)])
        assert done.code == 0, done.output
        fleet.settle()
        found = writers.end()
    print(f"rollout: {done.seconds:.1f} s, {found}")
    assert found["acknowledged"] > 500
    assert (found["lost"], found["diverged"], found["copies"]) == (0, 0, 2), found
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
        done = fleet.play("rollout", [sensorwindow(2)])
    assert done.code == 0, done.output
    assert set(done.changed().values()) == {0}, done.output
    assert not watch.changes, watch.told()


def test_a_primary_cut_off_in_the_middle_stops_the_run(fleet: Fleet) -> None:
    """The network of the primary's host goes once a first replica is changed. The Sentinels choose another primary; the
    run fails and never takes a second copy away; the next one finishes once the host is back.
    """
    wanted = [sensorwindow(2, args=["max-samples", "90000"])]
    with Writers(fleet.told()) as writers, Watch(fleet.nodes) as watch:
        former = fleet.by_name[watch.shards[0][0]]

        def cut() -> None:
            until(watch.started_again, "a first host is changed", LONGEST)
            # A timer of its own puts it back, and another begins it: this very connection is to end first.
            former.sh(
                f"printf %s {shlex.quote(CUT)} > /root/cut.nft && nft -c -f /root/cut.nft && "
                f"timer='systemd-run --quiet --timer-property=AccuracySec=100ms' && "
                f"$timer --on-active={CUT_S} nft delete table inet cut && $timer --on-active=0.3 nft -f /root/cut.nft"
            )
            until(lambda: not watch.now[former.name].start, "it is cut off", 10)

        done = fleet.play_and(cut, "rollout", wanted, redis_rollout_gate_timeout=10)
        assert done.code != 0, done.output
        until(lambda: former.state().start, "it is back", 60)
        # Whoever is primary by now: all others follow it.
        until(fleet.whole, "all copies are in sync again", 60)
        stopped = list(watch.started_again())
        assert former.name not in stopped, watch.told()
        assert max(watch.worst.values()) <= 1, f"{watch.told()}\n{done.output}"
        done = fleet.play("rollout", wanted)
        assert done.code == 0, done.output
        fleet.settle()
        found = writers.end()
    print(f"cut off: {found}")
    assert set(watch.started_again()) == set(fleet.by_name), watch.told()
    assert max(watch.worst.values()) <= 1, watch.told()
    # Redis replicates after it has answered: what was acknowledged at the very moment of the cut may be gone.
    assert found["lost"] <= 2 * 2, found
    assert (found["diverged"], found["copies"]) == (0, 2), found


APP = {"name": "app", "passwords": ["app-of-the-lab"], "rules": ["~* +@all"]}
ECHO = {"name": "argecho", "src": str(ROOT / "molecule" / "default" / "modules" / "argecho"), "version": 7}


def answer(node: Node) -> str:
    """Return what becomes of a command of the new module that the application's user sends to a server."""
    try:
        client = redis.Redis(
            node.address,
            username=APP["name"],
            password=APP["passwords"][0],
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        client.execute_command("argecho.list")
    except redis.exceptions.NoPermissionError:
        return "withheld"
    except redis.exceptions.ResponseError as error:
        return "unknown" if "unknown command" in str(error) else str(error)
    except (redis.RedisError, OSError):
        return "away"
    return "done"


def answers_during(fleet: Fleet, modules: list[dict[str, Any]], **variables: Any) -> tuple[Done, list[dict[str, str]]]:
    """Run a rollout, and ask all servers meanwhile; return how it went, and the answers of each round by host."""
    rounds: list[dict[str, str]] = []
    with ThreadPoolExecutor() as pool:
        run = pool.submit(fleet.finish, fleet.start("rollout", modules, **variables), time.monotonic())
        while not run.done():
            rounds.append({node.name: answer(node) for node in fleet.nodes})
            time.sleep(0.1)
        done = run.result()
    assert done.code == 0, done.output
    return done, rounds


def test_a_module_that_comes_or_goes_is_withheld_meanwhile_and_roles_go_back(fleet: Fleet) -> None:
    """While a copy lacks it, that copy would drop what clients write by it. So nobody may use it then."""
    known = [sensorwindow(2, args=["max-samples", "90000"])]
    variables = {"redis_server_acl_users": [APP], "redis_rollout_roles_go_back": True}
    done = fleet.play("rollout", known, **variables)
    assert done.code == 0, done.output
    before = fleet.shards()[0][0]

    done, rounds = answers_during(fleet, [*known, ECHO], **variables)
    assert "argecho withheld from clients until all copies have it" in done.output
    assert {node.name: answer(node) for node in fleet.nodes} == dict.fromkeys(fleet.by_name, "done")
    for name in fleet.by_name:
        assert "withheld" in [found[name] for found in rounds], rounds
    for found in rounds:
        if "done" in found.values():
            assert set(found.values()) <= {"done", "withheld"}, f"not all have it: {found}"
    assert fleet.shards()[0][0] == before, "the role went back"
    done = fleet.play("rollout", [*known, ECHO], **variables)
    assert set(done.changed().values()) == {0}, done.output

    _done, rounds = answers_during(fleet, [*known, {"name": "argecho", "state": "absent"}], **variables)
    assert {node.name: answer(node) for node in fleet.nodes} == dict.fromkeys(fleet.by_name, "unknown")
    for found in rounds:
        if "unknown" in found.values():
            assert "done" not in found.values(), f"a copy has lost it already: {found}"
    assert any({"withheld", "unknown"} <= set(found.values()) for found in rounds), rounds


def test_a_former_primary_keeps_what_its_heir_runs(fleet: Fleet) -> None:
    """It has handed over and then fails a gate: with what it ran before, it could not take over the data any more."""
    primary = fleet.shards()[0][0]
    done = fleet.play(
        "rollout",
        [sensorwindow(2, args=["max-samples", "90000"]), ECHO],
        redis_server_acl_users=[APP],
        redis_rollout_gate_timeout=6,
        redis_rollout_gates="{{ ['`false`'] if inventory_hostname == '" + primary + "' else [] }}",
    )
    assert done.code != 0, done.output
    assert f"{primary} is left as it is" in done.output, done.output
    assert "its primary runs argecho 7" in done.output, done.output
    fleet.settle()
    assert fleet.shards()[0][0] != primary
    assert {node.name: node.versions()["argecho"] for node in fleet.nodes} == dict.fromkeys(fleet.by_name, 7)
