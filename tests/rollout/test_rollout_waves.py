# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout goes wave by wave, stops where it should, and goes on from there. Clusters and Sentinel: see molecule/."""

from __future__ import annotations

import os
import re
import signal

from conftest import Built
from rollout_kit import SNAPSHOT, Done, Host, Lab, until

LOCK = "/var/lib/edgeops-redis-modules/rollout.lock"


def loaded(fleet: list[Host]) -> list[list[str]]:
    """Return the modules of each host."""
    return [sorted(host.modules()) for host in fleet]


def row(done: Done, host: Host) -> str:
    """Return the verdict on the module in the run's report."""
    (verdict,) = re.findall(rf'"{host.name}  .*  handed  .* ([a-z-]+)",?$', done.output, re.MULTILINE)
    return str(verdict)


def test_it_stops_on_purpose_and_goes_on_from_there(lab: Lab, fleet: list[Host], built: dict[str, Built]) -> None:
    """After a number of waves, and while a file is there; what no wave reached is as before, and said to be so."""
    modules, before = [built["handed"].entry()], [host.pid for host in fleet]
    pause = lab.folder / "pause"
    pause.write_text("maintenance\n", encoding="utf-8")
    stopped = lab.ansible(fleet, modules, redis_rollout_waves=["1"], redis_rollout_stop_after=1).good()
    assert "stopped before wave 2 of 3: redis_rollout_stop_after is 1" in stopped.output
    assert "not reached, so as before: r12, r13" in stopped.output
    assert loaded(fleet) == [["handed"], [], []]
    assert [row(stopped, host) for host in fleet] == ["loaded", "missing", "missing"]
    assert [host.pid for host in fleet[1:]] == before[1:]
    # The one that has passed is as wanted, and no part of the waves any more.
    paused = lab.ansible(fleet, modules, redis_rollout_waves=["1"], redis_rollout_pause_file=str(pause)).good()
    assert "1 of 3 hosts are as wanted" in paused.output
    assert f"stopped before wave 2 of 2: there is a file {pause}" in paused.output
    assert [row(paused, host) for host in fleet] == ["loaded", "loaded", "missing"]
    assert loaded(fleet) == [["handed"], ["handed"], []]
    pause.unlink()
    first = fleet[0].pid
    whole = lab.ansible(fleet, modules, redis_rollout_waves=["1"], redis_rollout_pause_file=str(pause)).good()
    assert "2 of 3 hosts are as wanted" in whole.output
    assert "1 of 1 hosts passed all gates" in whole.output
    assert [row(whole, host) for host in fleet] == ["loaded"] * 3
    assert loaded(fleet) == [["handed"]] * 3
    assert fleet[0].pid == first, "it was as wanted"
    assert not any(host.sh(f"ls {LOCK}", check=False) for host in fleet)


def test_a_wave_that_does_not_pass_goes_back_and_stops_the_rest(
    lab: Lab, fleet: list[Host], built: dict[str, Built]
) -> None:
    """Where one host fails a gate of the operator, its wave goes back, and no later one begins."""
    r11, r12, r13 = fleet
    wave = {"redis_rollout_waves": ["1"], "redis_rollout_gate_timeout": 4}
    before = [host.pid for host in fleet]
    gates = {"r12": {"redis_rollout_gates": ["server.key_count > `0`"]}}
    done = lab.ansible(fleet, [built["handed"].entry()], host_variables=gates, **wave)
    assert done.code != 0
    assert "the gate 'server.key_count > `0`' is False, not true" in done.failure(r12)
    assert "r12 is as it was before this run" in done.failure(r12)
    assert "stopped before wave 3 of 3: r12 did not pass" in done.output
    assert loaded(fleet) == [["handed"], [], []]
    assert r13.pid == before[2]
    assert r12.pid != before[1], "it was changed, and put back"

    # Side by side with it, a host that is well falls, too.
    wave["redis_rollout_waves"] = ["2"]
    done = lab.ansible(fleet, [built["handed"].entry()], host_variables=gates, **wave)
    assert "r12, of the same wave, did not pass" in done.failure(r13)
    assert loaded(fleet) == [["handed"], [], []]
    assert r13.pid != before[2]

    # What the gate asks for is mended: it goes on, and the canary has nothing to do.
    r12.cli("SET", "key", "value")
    canary = r11.pid
    lab.ansible(fleet, [built["handed"].entry()], host_variables=gates, **wave).good()
    assert loaded(fleet) == [["handed"]] * 3
    assert r11.pid == canary


def test_a_run_that_dies_between_waves_leaves_nothing_that_the_next_does_not_end(
    lab: Lab, fleet: list[Host], built: dict[str, Built]
) -> None:
    """What a wave has reached is kept, although nobody has forgotten yet what was there before."""
    first, second, _third = fleet
    modules = [built["handed"].entry()]
    variables = {"redis_modules": modules, "redis_rollout_waves": ["1"]}
    process = lab.ansible.start("rollout", lab.ansible.inventory(fleet, variables))
    waves = 0
    try:
        assert process.stdout is not None
        for line in process.stdout:
            waves += line.startswith("TASK") and "Try it, change the server" in line
            if waves == 2:
                break
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    until(lambda: not second.sh("pgrep -x python3", check=False), "what was begun there is over", 120)
    assert first.sh(f"ls -d {SNAPSHOT} {LOCK}").split() == [SNAPSHOT, LOCK]
    assert sorted(first.modules()) == ["handed"]
    before = first.pid
    lab.ansible(fleet, modules, redis_rollout_waves=["1"]).good()
    assert loaded(fleet) == [["handed"]] * 3
    assert first.pid == before, "it had come to where it should"
    assert not any(host.sh(f"ls -d {SNAPSHOT} {LOCK} 2>/dev/null", check=False) for host in fleet)
    assert "3 of 3 hosts are as wanted" in lab.ansible(fleet, modules).unchanged().output


def test_gates_that_can_not_be_read_are_refused_before_anything_is_touched(lab: Lab, r12: Host) -> None:
    """And what comes out as something else than true is no passed gate."""
    before = r12.snapshot()
    refused = lab.ansible([r12], [], redis_rollout_gates=["server.["])
    assert refused.code != 0
    assert "the gate 'server.[' in redis_rollout_gates" in refused.output
    assert r12.snapshot() == before


def test_a_second_rollout_is_refused_while_the_first_one_goes_on(lab: Lab, r12: Host, built: dict[str, Built]) -> None:
    """It says who holds the lock since when; the first one ends well, and leaves no lock."""
    variables = {"redis_modules": [built["handed"].entry()]}
    first = lab.ansible.start("rollout", lab.ansible.inventory([r12], variables))
    try:
        until(lambda: r12.sh(f"cat {LOCK}", check=False), "the first one holds the lock")
        second = lab.ansible([r12], [built["fetched"].entry()])
        assert second.code != 0
        assert "this host's lock is held by" in second.failure(r12)
        assert "redis_rollout_take_over_lock" in second.failure(r12)
    finally:
        output, _nothing = first.communicate(timeout=300)
    assert first.returncode == 0, output
    assert sorted(r12.modules()) == ["handed"]
    assert not r12.sh(f"ls {LOCK}", check=False)


def test_a_host_that_is_lost_before_its_turn_is_reported_and_all_others_are_released(
    lab: Lab, fleet: list[Host], built: dict[str, Built]
) -> None:
    """It is a wave by itself. What was changed before it stays, what comes after it is not begun."""
    first, lost, last = fleet
    variables = {"redis_modules": [built["handed"].entry()], "redis_rollout_waves": ["1"]}
    process = lab.ansible.start("rollout", lab.ansible.inventory(fleet, variables))
    output = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith("TASK") and "Stand or fall with the wave" in line and not lost.is_cut_off():
                os.kill(process.pid, signal.SIGSTOP)
                lost.cut_off(35)
                os.kill(process.pid, signal.SIGCONT)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate(timeout=300)
    said = "".join(output)
    assert process.returncode != 0, said
    assert "r12 can't be reached: " in said
    assert [host.modules() for host in (first, last)] == [{"handed": 1}, {}], said
    assert not [host for host in (first, last) if host.sh(f"ls {LOCK}", check=False)]
    assert "1 of 3 hosts passed all gates" in said
    assert "stopped before wave 3 of 3: " in said
    until(lambda: not lost.is_cut_off(), "the host is back", 90)
    assert not lost.modules()
    lab.ansible(fleet, [built["handed"].entry()]).good()
    assert [host.modules() for host in fleet] == [{"handed": 1}] * 3


def test_the_lock_of_another_controller_is_taken_over_knowingly(lab: Lab, r12: Host, built: dict[str, Built]) -> None:
    """Nobody here can know whether that run is dead."""
    r12.put(
        LOCK, '{"run": "x", "who": "alice@far", "controller": "far", "pid": 1, "started": "1", "since": 1}', mode="0600"
    )
    refused = lab.ansible([r12], [built["handed"].entry()])
    assert refused.code != 0
    assert "alice@far" in refused.failure(r12)
    assert not r12.modules()
    lab.ansible([r12], [built["handed"].entry()], redis_rollout_take_over_lock=True).good()
    assert sorted(r12.modules()) == ["handed"]
    assert not r12.sh(f"ls {LOCK}", check=False)
