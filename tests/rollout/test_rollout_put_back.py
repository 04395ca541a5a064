# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that fails on the live server leaves it with what it ran before, and its data."""

from __future__ import annotations

from typing import Any

import pytest
from rollout_kit import CONF, DROPIN, FOLDER, SNAPSHOT, UNIT, Host, Lab, probe, until, variant

pytestmark = pytest.mark.usefixtures("roles_alone")


def state(host: Host) -> tuple[object, ...]:
    """Return what has to come back: files, modules and data."""
    files = [CONF, DROPIN, f"{FOLDER}/probe.so", f"{FOLDER}/second.so"]
    return ([host.sha256(path) for path in files], host.modules(), host.cli("GET", "key"), host.config("maxmemory"))


def test_a_module_that_fails_in_the_service_alone_is_taken_back(lab: Lab) -> None:
    """No trial can see this one: it refuses only where systemd waits for it."""
    fleet = lab.reset("r11", "r13")
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
    lab.ansible.killed(r12, [variant("probe", "PROBE_TEXT=half")], "redis_service", 0.0)
    lab.ansible([r12], [variant("probe", "PROBE_LIVE_ONLY")]).failure(r12)
    assert state(r12) == was
    assert r12.cli("probe.text") == "first"


def test_a_run_that_moves_the_server_is_taken_back_to_the_former_place(lab: Lab, r12: Host) -> None:
    """The failed run's own port and password are of no use any more: redis.conf of before knows the right ones."""
    former: dict[str, Any] = {"redis_server_port": 6390, "redis_server_requirepass": "former"}
    login = ("-p", "6390", "-a", "former")
    lab.ansible([r12], [probe()], redis_rollout_allow_unseen=True, **former).good()
    r12.cli("SET", "key", "value", login=login)
    message = lab.ansible(
        [r12],
        [variant("probe", "PROBE_TEXT=newer"), variant("second", "PROBE_LIVE_ONLY")],
        redis_server_port=6391,
        redis_server_requirepass="newer",
    ).failure(r12)
    assert "r12 is as it was before this run" in message
    assert "was restarted and runs probe" in message
    assert r12.cli("probe.text", login=login) == "first"
    assert r12.cli("GET", "key", login=login) == '"value"'
    lab.ansible([r12], [probe()], **former).unchanged()


def test_settings_of_run_time_are_set_back_where_nothing_was_restarted(lab: Lab, r12: Host) -> None:
    """The last step fails, with the new settings in the running server; those that redis.conf does not name, too."""
    lab.ansible([r12], [probe()], redis_server_maxmemory="64mb").good()
    r12.cli("CONFIG", "SET", "maxmemory-samples", "7")
    pid = r12.pid
    message = lab.ansible(
        [r12],
        [probe()],
        redis_server_maxmemory="96mb",
        redis_server_masterauth="s3cret",
        redis_server_acl_users=[{"name": "dashboard", "passwords": ["s3cret"], "rules": ["~*", "+@read"]}],
        # What is confirmed is not what was placed.
        redis_verify_mode="0500",
    ).failure(r12)
    assert "mode is 0555, wanted 0500" in message
    assert "masterauth, maxmemory, maxmemory-samples, user dashboard were set back" in message
    assert r12.texts("ACL", "USERS") == ["default"]
    assert [r12.config(name) for name in ("maxmemory", "masterauth", "maxmemory-samples")] == [str(64 << 20), "", "7"]
    assert r12.pid == pid


def test_a_server_that_a_dead_run_left_stopped_comes_back_before_anything_else(lab: Lab, r12: Host) -> None:
    """It died between stop and start, and the next run is refused by the trial: the former state runs."""
    lab.ansible([r12], [probe()]).good()
    r12.cli("SET", "key", "value")
    was = state(r12)
    lab.ansible.killed(r12, [variant("probe", "PROBE_TEXT=half")], "redis_service", 0.0)
    until(lambda: not r12.sh("pgrep -x python3", check=False), "the run that was killed is over on the host")
    r12.sh(f"systemctl stop {UNIT}")
    refused = lab.ansible([r12], [variant("probe", "PROBE_ERROR")])
    assert "probe is built to refuse" in refused.failure(r12)
    assert r12.cli("probe.text") == "first"
    assert state(r12) == was
    assert r12.sh(f"test -e {SNAPSHOT} && echo there || true") == ""

    # One that an operator has stopped is nobody's leftover.
    r12.sh(f"systemctl stop {UNIT}")
    assert "probe is built to refuse" in lab.ansible([r12], [variant("probe", "PROBE_ERROR")]).failure(r12)
    assert r12.pid == 0
