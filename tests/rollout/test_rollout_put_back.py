# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that fails on the live server leaves it with what it ran before, and its data."""

from __future__ import annotations

from rollout_kit import CONF, DROPIN, FOLDER, SNAPSHOT, UNIT, Host, Lab, probe, variant


def state(host: Host) -> tuple[object, ...]:
    """Return what has to come back: files, modules and data."""
    files = [CONF, DROPIN, f"{FOLDER}/probe.so", f"{FOLDER}/second.so"]
    return ([host.sha256(path) for path in files], host.modules(), host.cli("GET", "key"), host.config("maxmemory"))


def test_a_module_that_fails_in_the_service_alone_is_taken_back(lab: Lab, fleet: list[Host]) -> None:
    """No trial can see this one: it refuses only where systemd waits for it."""
    modules = [probe()]
    lab.ansible(fleet, modules).good()
    for host in fleet:
        host.cli("SET", "key", "value")
    before = [state(host) for host in fleet]

    bad = [variant("probe", "PROBE_TEXT=newer"), variant("second", "PROBE_LIVE_ONLY")]
    failed = lab.ansible(fleet, bad)
    assert failed.code != 0
    for host, was in zip(fleet, before, strict=True):
        message = failed.failure(host)
        assert "probe refuses the live server" in message, host.name
        assert f"{host.name} is as it was before this run" in message
        assert state(host) == was
        assert host.cli("probe.text") == "first"
        assert host.live_sha256(f"{FOLDER}/probe.so") == host.sha256(f"{FOLDER}/probe.so")
        assert host.sh(f"test -e {SNAPSHOT} && echo there || true") == ""
    lab.ansible(fleet, modules).unchanged()


def test_the_first_module_of_a_host_that_fails_leaves_the_packaged_server(lab: Lab, r12: Host) -> None:
    """There is no drop-in and no module to go back to, only the package's own configuration."""
    r12.cli("SET", "key", "value")
    packaged = state(r12)
    assert "probe refuses the live server" in lab.ansible([r12], [variant("probe", "PROBE_LIVE_ONLY")]).failure(r12)
    assert state(r12) == packaged
    assert r12.sh(f"systemctl is-active {UNIT}").strip() == "active"


def test_a_run_that_died_is_gone_back_to_before_it(lab: Lab, r12: Host) -> None:
    """Killed between place and restart, and what comes next fails, too: the state before both returns."""
    lab.ansible([r12], [probe()]).good()
    r12.cli("SET", "key", "value")
    was = state(r12)
    lab.ansible.killed(r12, [variant("probe", "PROBE_TEXT=half")], "Write redis.conf and the drop-in", 0.0)
    lab.ansible([r12], [variant("probe", "PROBE_LIVE_ONLY")]).failure(r12)
    assert state(r12) == was
    assert r12.cli("probe.text") == "first"
