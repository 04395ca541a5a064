# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rollback: modules go back to a release that a host has kept, and forward again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Built
from rollout_kit import CORES, FOLDER, Done, Entry, Host, Lab

pytestmark = pytest.mark.usefixtures("roles_alone")

FILE = f"{FOLDER}/probe.so"
RELEASES = f"{FOLDER}/.releases/probe"

Probes = Callable[..., Built]


def back(
    lab: Lab, hosts: list[Host], modules: list[Entry], release: object, *options: str, core: str = "newest"
) -> Done:
    """Run the playbook for the module probe."""
    return lab.ansible(hosts, modules, *options, playbook="rollback", core=core, redis_rollback={"probe": release})


def two_releases(lab: Lab, hosts: list[Host], probes: Probes) -> tuple[Built, Built, list[Entry]]:
    """Roll a first and a second release out, and return both with the declaration of the second."""
    first, second = probes("first"), probes("second", "PROBE_VERSION=2")
    lab.ansible(hosts, [first.entry(args=["of the first"], version=1)]).good()
    declared = [second.entry(args=["of the second"], version=2)]
    lab.ansible(hosts, declared).good()
    return first, second, declared


def test_back_to_the_previous_release_and_forward_again(lab: Lab, probes: Probes) -> None:
    """Only the module's file goes back: the arguments are as declared, the declared version does not count."""
    fleet = lab.reset("r11", "r12")
    first, second, declared = two_releases(lab, fleet, probes)
    for host in fleet:
        host.cli("SET", "key", "value")
    before = [host.snapshot() for host in fleet]
    forecast = back(lab, fleet, declared, "previous", "--check", "--diff").good()
    assert all(forecast.recap(host)["changed"] for host in fleet)
    assert [host.snapshot() for host in fleet] == before

    starts = [host.starts for host in fleet]
    back(lab, fleet, declared, "previous").good()
    for host, started in zip(fleet, starts, strict=True):
        assert host.modules() == {"probe": 1}
        assert host.cli("probe.text") == "first"
        assert host.texts("probe.args") == ["of the second"]
        assert host.sha256(FILE) == host.live_sha256(FILE) == first.sha256
        assert host.sh(f"stat -c '%U:%G %a' {FILE}").strip() == "redis:redis 555"
        assert host.sha256(f"{RELEASES}/{second.sha256[:16]}.so") == second.sha256
        assert host.cli("GET", "key") == '"value"'
        assert host.starts == started + 1

    # The same command again must not swing to the other one.
    after = [host.snapshot() for host in fleet]
    for core in CORES:
        back(lab, fleet, declared, "previous", core=core).unchanged()
    back(lab, fleet, declared, "previous", "--check").unchanged()
    assert [host.snapshot() for host in fleet] == after

    back(lab, fleet, declared, second.sha256[:12]).good()
    assert [host.cli("probe.text") for host in fleet] == ["second"] * 2
    back(lab, fleet, declared, second.sha256[:12]).unchanged()
    lab.ansible(fleet, declared).unchanged()
    # Having gone forward again does not make another release the previous one.
    back(lab, fleet, declared, "previous").good()
    assert [host.cli("probe.text") for host in fleet] == ["first"] * 2
    lab.ansible(fleet, declared).good()
    assert [host.cli("probe.text") for host in fleet] == ["second"] * 2


def test_a_host_without_the_release_says_what_it_has(lab: Lab, probes: Probes) -> None:
    """It fails untouched, and its wave stays with it; without it, the others go back."""
    hosts = lab.reset("r12", "r13")
    behind, ahead = hosts
    first, second, declared = two_releases(lab, [ahead], probes)
    lab.ansible([behind], declared).good()
    before = behind.snapshot()
    process = ahead.pid
    done = back(lab, hosts, declared, first.sha256[:16])
    assert done.code != 0
    assert f"module probe: there is no release {first.sha256[:16]}; this host has {second.sha256[:16]} of " in (
        done.failure(behind)
    )
    assert "(in place)" in done.failure(behind)
    assert behind.snapshot() == before
    assert "r12, of the same wave, did not pass" in done.failure(ahead)
    assert ahead.pid != process, "it had gone back, and came forward again"
    assert ahead.cli("probe.text") == "second"
    back(lab, [ahead], declared, first.sha256[:16]).good()
    assert ahead.cli("probe.text") == "first"
    assert "no release before the newest one" in back(lab, [behind], declared, "previous").failure(behind)
    assert behind.snapshot() == before


def test_bad_input_is_refused_before_anything_is_touched(lab: Lab, r12: Host, probes: Probes) -> None:
    """Nothing named, an unknown module, one that is absent, and words that name no release."""
    entry = probes("first").entry()
    lab.ansible([r12], [entry]).good()
    before = r12.snapshot()
    refused = [
        ({}, [entry], "redis_rollback says nothing"),
        ({"other": "previous"}, [entry], "module other: it is not declared"),
        ({"probe": "previous"}, [{"name": "probe", "state": "absent"}], "module probe: it is declared absent"),
        ({"probe": "last week"}, [entry], "module probe: the release 'last week' must be previous"),
        ({"probe": 123456}, [entry], "in quotes"),
    ]
    # Each under an inventory name of its own, as if it were a machine of its own.
    cases = {
        f"case{number}": {
            "redis_rollback": releases,
            "redis_modules": modules,
            "ansible_ssh_extra_args": f"-o SendEnv=CASE{number}",
        }
        for number, (releases, modules, _message) in enumerate(refused)
    }
    for core in CORES:
        done = lab.ansible(dict.fromkeys(cases, r12), playbook="rollback", core=core, host_variables=cases)
        assert done.code != 0
        for case, (_releases, _modules, message) in zip(cases, refused, strict=True):
            assert message in done.failure(case), done.output
    assert "redis_rollback says nothing" in lab.ansible([r12], [entry], playbook="rollback").output
    assert r12.snapshot() == before


def test_a_release_that_does_not_run_any_more_is_never_left_in_place(lab: Lab, r12: Host, probes: Probes) -> None:
    """One that no server loads is seen in the trial; one that fails in the service alone is taken back."""
    _first, _second, declared = two_releases(lab, [r12], probes)
    bad = [probes("third", "PROBE_ERROR"), probes("third", "PROBE_LIVE_ONLY")]
    for built in bad:
        r12.put(f"{RELEASES}/{built.sha256[:16]}.so", built.path.read_bytes(), mode="0555")
    damaged = "f" * 16
    r12.put(f"{RELEASES}/{damaged}.so", "not what its name says", mode="0555")
    r12.cli("SET", "key", "value")
    before = r12.snapshot()
    assert "probe is built to refuse" in back(lab, [r12], declared, bad[0].sha256).failure(r12)
    assert f"no release {damaged}" in back(lab, [r12], declared, damaged).failure(r12)
    assert r12.snapshot() == before

    failed = back(lab, [r12], declared, bad[1].sha256).failure(r12)
    assert "probe refuses the live server" in failed
    assert "r12 is as it was before this run" in failed
    assert r12.cli("probe.text") == "second"
    assert r12.cli("GET", "key") == '"value"'
    # What was asked for is still there, and so is what "previous" means.
    assert r12.sha256(f"{RELEASES}/{bad[1].sha256[:16]}.so") == bad[1].sha256
    lab.ansible([r12], declared).unchanged()


def test_the_oldest_of_the_kept_releases_survives_going_back_to_it(lab: Lab, r12: Host, probes: Probes) -> None:
    """With one release kept, the one that is in place takes no other's room."""
    first, second, declared = two_releases(lab, [r12], probes)
    options = {"redis_rollout_keep_releases": 1}
    for release, text in (("previous", "first"), (second.sha256, "second"), ("previous", "first")):
        lab.ansible([r12], declared, playbook="rollback", redis_rollback={"probe": release}, **options).good()
        assert r12.cli("probe.text") == text
    assert r12.sha256(FILE) == first.sha256
    listed = lab.ansible([r12], declared, playbook="rollback", redis_rollback={"probe": "0" * 16}).failure(r12)
    assert all(built.sha256[:16] in listed for built in (first, second))
