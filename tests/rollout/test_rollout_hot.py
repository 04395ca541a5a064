# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are changed in the running server, and what is refused before anything is touched."""

from __future__ import annotations

from typing import Any

import pytest
from rollout_kit import CONF, DROPIN, FOLDER, LOG, MODULES, UNIT, Done, Entry, Host, Lab, probe, variant

pytestmark = pytest.mark.usefixtures("roles_alone")

ALLOWED: dict[str, Any] = {"redis_server_extra_directives": {"enable-module-command": "local"}}
HOT = {"strategy": "hot"}


def rollout(lab: Lab, hosts: list[Host], modules: list[Entry], *options: str, **variables: Any) -> Done:
    """Roll out to hosts of which those with Redis 7.0 and later let MODULE be used."""
    own = {host.name: ALLOWED for host in hosts if host.name != "r11"}
    return lab.ansible(hosts, modules, *options, host_variables=own, **variables)


def touched(host: Host) -> tuple[object, ...]:
    """Return what a change without a restart leaves alone."""
    return (host.pid, host.starts, host.cli("GET", "key"))


def files(host: Host) -> list[str]:
    """Return what a failed change puts back."""
    return [host.sha256(path) for path in (CONF, DROPIN, f"{FOLDER}/probe.so", f"{FOLDER}/second.so")]


def test_all_that_can_happen_to_a_module_without_a_restart(lab: Lab, fleet: list[Host]) -> None:
    """New code, new arguments, a module that comes, one that goes: the process stays, and a later start is the same."""
    rollout(lab, fleet, [probe(), probe("goes")]).good()
    for host in fleet:
        host.cli("SET", "key", "value")
    before = [touched(host) for host in fleet]
    was = {host.name: host.sha256(f"{FOLDER}/probe.so") for host in fleet}

    wanted = [
        variant("probe", "PROBE_TEXT=newer", args=["two words", 'a "b"'], **HOT),
        probe("comes", args=["x"], **HOT),
        {"name": "goes", "state": "absent", "strategy": "hot_or_restart"},
    ]
    logs = [host.sh(f"wc -c < {LOG}").strip() for host in fleet]
    states = [host.snapshot() for host in fleet]
    rollout(lab, fleet, wanted, "--check").good()
    assert [host.snapshot() for host in fleet] == states
    rollout(lab, fleet, wanted).good()
    for host, were, log in zip(fleet, before, logs, strict=True):
        assert touched(host) == were, host.sh(f"tail -c +{log} {LOG}")
        assert host.modules() == {"probe": 1, "comes": 1}
        assert host.cli("probe.text") == "newer"
        assert host.texts("probe.args") == ["two words", 'a "b"']
        assert host.texts("comes.args") == ["x"]
        assert "unknown command" in host.cli("goes.text").lower()
        assert host.sha256(f"{FOLDER}/probe.so") == host.live_sha256(f"{FOLDER}/probe.so") != was[host.name]
    rollout(lab, fleet, wanted).unchanged()
    assert [touched(host) for host in fleet] == before

    # Nothing of it was for this process alone.
    for host in fleet:
        host.sh(f"systemctl restart {UNIT}")
        assert host.modules() == {"probe": 1, "comes": 1}
        assert host.texts("probe.args") == ["two words", 'a "b"']
    rollout(lab, fleet, wanted).unchanged()

    # The drop-in is seen to have changed, and only a restart takes it in.
    again = [variant("probe", "PROBE_TEXT=newest", **HOT), probe("comes", args=["x"], **HOT)]
    states = [host.snapshot() for host in fleet]
    failed = rollout(lab, fleet, again, redis_server_dropin_lines=["TasksMax=900"])
    for host, state in zip(fleet, states, strict=True):
        assert "module probe: strategy is hot, but a change without a restart is not possible" in failed.failure(host)
        assert "another drop-in" in failed.failure(host)
        assert host.snapshot() == state


def test_what_the_live_server_alone_refuses_is_taken_back_at_once(lab: Lab) -> None:
    """One module is changed already when the next fails: both run as before, in the same process."""
    fleet = lab.reset("r11", "r13")
    modules = [probe(args=["old"]), probe("second", args=["old"])]
    rollout(lab, fleet, modules).good()
    for host in fleet:
        host.cli("SET", "key", "value")
    before = [(touched(host), files(host)) for host in fleet]

    bad = [
        variant("probe", "PROBE_TEXT=newer", args=["new"], **HOT),
        variant("second", "PROBE_LIVE_ONLY", args=["new"], strategy="hot_or_restart"),
    ]
    failed = rollout(lab, fleet, bad)
    for host, were in zip(fleet, before, strict=True):
        message = failed.failure(host)
        assert "module second: the running server does not load" in message
        assert "loaded again at once: probe, second" in message
        assert "probe refuses the live server" in message
        assert f"{host.name} is as it was before this run" in message
        assert (touched(host), files(host)) == were
        assert host.modules() == {"probe": 1, "second": 1}
        assert host.cli("probe.text") == "first"
        assert [host.texts(f"{name}.args") for name in ("probe", "second")] == [["old"], ["old"]]
        for name in ("probe", "second"):
            assert host.sha256(f"{FOLDER}/{name}.so") == host.live_sha256(f"{FOLDER}/{name}.so")
    rollout(lab, fleet, modules).unchanged()


def configured(greeting: str, *defines: str) -> Entry:
    """Return the module with a directive of its own."""
    source = str(MODULES / "configured")
    return {"name": "configured", "src": source, "config": {"greeting": greeting}, "defines": list(defines), **HOT}


def test_a_modules_own_directives_come_along(lab: Lab, r13: Host) -> None:
    """A module that is loaded anew has them from its first moment."""
    rollout(lab, [r13], []).good()
    pid = r13.pid
    rollout(lab, [r13], [configured("good day, all")]).good()
    assert r13.cli("configured.greet") == '"good day, all"'
    changed = [configured('good "evening"', "NEWER=1")]
    rollout(lab, [r13], changed).good()
    assert r13.cli("configured.greet") == '"good \\"evening\\""'
    assert r13.pid == pid
    rollout(lab, [r13], changed).unchanged()


def test_an_acl_user_that_names_a_command(lab: Lab, fleet: list[Host]) -> None:
    """UNLOAD would crash the server; refused before anything is touched, or a restart where that is allowed."""
    rollout(lab, fleet, [probe(), probe("other")]).good()
    for host in fleet:
        host.cli("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@read", "+probe.text")
    states = [host.snapshot() for host in fleet]
    failed = rollout(lab, fleet, [variant("probe", "PROBE_TEXT=newer", **HOT), probe("other")])
    for host in fleet:
        assert "the ACL user reader names" in failed.failure(host)
        assert "command probe.text" in failed.failure(host)
    assert [host.snapshot() for host in fleet] == states
    starts = [host.starts for host in fleet]
    newer = [variant("probe", "PROBE_TEXT=newer", strategy="hot_or_restart"), probe("other")]
    rollout(lab, fleet, newer).good()
    for host, started in zip(fleet, starts, strict=True):
        assert (host.starts, host.cli("probe.text")) == (started + 1, "newer")


def test_what_can_be_known_beforehand_is_refused(lab: Lab, r12: Host) -> None:
    """A data type; and a server that takes no MODULE LOAD."""
    treelike: Entry = {"name": "treelike", "src": str(MODULES / "treelike")}
    rollout(lab, [r12], [probe()]).good()
    state = r12.snapshot()
    example = {"name": "sensorwindow", "src": str(MODULES.parents[2] / "examples" / "sensorwindow"), **HOT}
    failed = rollout(lab, [r12], [probe(), {**example, "libraries": ["m", "pthread"]}])
    assert "module sensorwindow: the new file has a data type" in failed.failure(r12)
    assert r12.snapshot() == state

    lab.ansible([r12], [probe()]).good()
    state = r12.snapshot()
    failed = lab.ansible([r12], [probe(), {**treelike, **HOT}])
    assert "enable-module-command is no" in failed.failure(r12)
    assert r12.snapshot() == state
