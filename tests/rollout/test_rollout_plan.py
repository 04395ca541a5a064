# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a fleet can be changed, as the servers themselves tell who follows whom."""

from __future__ import annotations

from rollout_kit import UNIT, Host, Lab, until


def test_the_plan_of_a_primary_its_replica_and_a_server_by_itself(lab: Lab, fleet: list[Host]) -> None:
    """The inventory says nothing of it. A replica that is down leaves nobody to hand over to. Nothing is changed."""
    _alone, primary, replica = fleet
    primary.cli("CONFIG", "SET", "protected-mode", "no")
    primary.cli("CONFIG", "SET", "bind", "0.0.0.0")
    replica.cli("REPLICAOF", primary.address, "6379")
    until(lambda: "master_link_status:up" in replica.cli("INFO", "replication"), "the replica follows")
    assert replica.cli("CONFIG", "REWRITE") == "OK"
    before = [host.snapshot() for host in fleet]
    planned = lab.ansible(fleet, playbook="plan").unchanged().output
    lines = [
        "wave 1: r11 (standalone)",
        "wave 2: r13 (replication of r12)",
        "wave 3: r12 (replication of r12), after it has handed over to r13 (FAILOVER)",
    ]
    positions = [planned.index(line) for line in lines]
    assert positions == sorted(positions)
    assert [host.snapshot() for host in fleet] == before

    # One that the inventory does not hold is named.
    assert (
        f"the replica {replica.address}:6379 is not in the inventory" in lab.ansible([primary], playbook="plan").output
    )

    replica.sh(f"systemctl stop {UNIT}")
    refused = lab.ansible(fleet, playbook="plan")
    assert refused.code != 0
    assert "no replica could take over (r13: it does not run)" in refused.output
