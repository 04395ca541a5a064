# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook verify says of hosts as they are, and after drift made by hand; and that a rollout mends it.

Each round makes another kind of drift on each host, so that one run of a playbook tells of three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import testinfra
from conftest import FOLDER, HOSTS, UNIT, Done, Redis, play

SO = f"{FOLDER}/argecho.so"


@dataclass(frozen=True)
class Drift:
    """One kind of drift: a script that makes it, what verify must call it, and what it must say of it."""

    kind: str
    make: str
    verdict: str
    says: str
    restarts: bool


MODE = Drift("mode", f"chmod 0777 {SO}", "drifted", "mode is 0777, wanted 0555", restarts=False)
OWNER = Drift("owner", f"chown root:root {SO}", "drifted", "owner is root, wanted redis", restarts=False)
REPLACED = Drift(
    "replaced",
    # The same module with one byte more at its end, as a newer build would be: other content, still loadable.
    f"cp {SO} {FOLDER}/.x && chmod u+w {FOLDER}/.x && printf x >> {FOLDER}/.x && chown redis:redis {FOLDER}/.x && "
    f"chmod 0555 {FOLDER}/.x && mv {FOLDER}/.x {SO}",
    "restart-pending",
    "older file mapped",
    restarts=False,  # the rollout puts the former file back, which is what runs
)
REMOVED = Drift("removed", f"rm {SO}", "drifted", f"no file at {SO}", restarts=False)
STOPPED = Drift("stopped", f"systemctl stop {UNIT}", "broken", "the server does not run", restarts=True)
ARGUMENTS = Drift(
    "arguments",
    f"sed -i 's#^loadmodule {SO} .*#loadmodule {SO} other#' /etc/redis/redis.conf && systemctl restart {UNIT}",
    "drifted",
    "arguments are ['other']",
    restarts=True,
)
NOT_LOADED = Drift(
    "not loaded",
    f"sed -i '\\#^loadmodule {SO}#d' /etc/redis/redis.conf && systemctl restart {UNIT}",
    "missing",
    "MODULE LIST does not report it",
    restarts=True,
)

ROUNDS = [
    dict(zip(HOSTS, (MODE, REPLACED, REMOVED), strict=True)),
    dict(zip(HOSTS, (STOPPED, OWNER, ARGUMENTS), strict=True)),
    dict(zip(HOSTS, (REPLACED, NOT_LOADED, STOPPED), strict=True)),
]


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> dict[str, Redis]:
    """Return every host's server by its name."""
    inventory = request.config.getoption("ansible_inventory")
    found = testinfra.get_hosts(HOSTS, connection="ansible", ansible_inventory=inventory)
    return {redis.name: redis for redis in map(Redis, found)}


def row(done: Done, host: str, module: str) -> str:
    """Return the verdict in the table's row."""
    found = re.findall(rf"\b{host}  .*  {module} .* ([a-z-]+)['\"]?,?$", done.output, re.MULTILINE)
    assert found, f"no row of {host} and {module} in\n{done.output}"
    return str(found[-1])


def test_verify_accepts_what_a_rollout_left() -> None:
    """Exit status 0, nothing changed, a row for each module of each host."""
    done = play("verify")
    assert done.code == 0, done.output
    for host in HOSTS:
        assert done.recap(host)["changed"] == 0
        assert row(done, host, "argecho") == row(done, host, "sensorwindow") == "loaded"


@pytest.mark.parametrize("drifts", ROUNDS, ids=lambda drifts: "+".join(d.kind for d in drifts.values()))
def test_drift_is_named_and_mended(drifts: dict[str, Drift], servers: dict[str, Redis]) -> None:
    """Verify fails, names each difference and touches nothing; the next rollout mends it; then verify is content."""
    for name, drift in drifts.items():
        servers[name].sh(drift.make)
    pids = {name: server.pid for name, server in servers.items()}

    verified = play("verify")
    assert verified.code != 0, verified.output
    for name, drift in drifts.items():
        assert verified.recap(name)["failed"] == 1, verified.output
        assert row(verified, name, "argecho") == drift.verdict
        told = [line for line in verified.output.splitlines() if re.search(rf"{name}, module argecho: ", line)]
        assert any(drift.says in line for line in told), verified.output
        assert servers[name].pid == pids[name], "verify touched the server"

    mended = play("rollout")
    assert mended.code == 0, mended.output
    for name, drift in drifts.items():
        assert (servers[name].pid != pids[name]) == drift.restarts, f"{name}: restarted wrongly after {drift.kind}"
        assert servers[name].modules() == {"argecho": 7, "sensorwindow": 20000}
        assert len(servers[name].texts("argecho.list")) == 10
        assert servers[name].sh(f"stat -c '%U:%G %a' {SO}").strip() == "redis:redis 555"

    again = play("verify")
    assert again.code == 0, again.output
