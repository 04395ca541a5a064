# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order a fleet is changed, so that no shard is without a healthy copy. Pure functions."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _topology
from ansible_collections.edgeops.redis_modules.plugins.module_utils._topology import Copy, Shard

FAILOVER_SINCE = (6, 2)
"""FAILOVER, by which a primary hands over without Sentinel or Cluster."""

WAVES = ("1", "10%", "30%", "100%")
"""How many standalone servers each wave takes: a canary, then ever more of all."""


class WavesError(ValueError):
    """What is wrong with the sizes of the waves; the text is for the operator."""


class Step(NamedTuple):
    """One host in a wave; before it is changed, it hands its role over to I(handover_to) by I(command), where given."""

    host: str
    shard: str
    handover_to: str = ""
    command: str = ""


class Plan(NamedTuple):
    """The waves, what stands against them, and what the operator should know."""

    waves: list[list[Step]]
    faults: list[str]
    warnings: list[str]


def plan(told: Mapping[str, Mapping[str, Any]], sizes: Sequence[Any] = WAVES, shards_at_once: int = 1) -> Plan:
    """Return the order in which the hosts of I(told) are changed.

    I(told) maps inventory names to what redis_topology_info returned. Hosts whose server does not run go first, at
    once. Then comes one host alone, the canary; then standalone servers by I(sizes), and shards I(shards_at_once) at
    a time, each replica by replica, and its primary last, after it has handed over. Raises WavesError.
    """
    counts = _sizes(sizes)
    shards = _topology.shards(told)
    faults = [f"{host}: it was not reached, so nobody knows whose copy it is" for host in told if not told[host]]
    faults += [fault for shard in shards for fault in _faults(shard)]
    warnings = [warning for shard in shards for warning in _warnings(shard)]
    idle = [Step(host, "not running") for host, server in told.items() if server and not server["running"]]
    alone = [Step(shard.primary.host, "standalone") for shard in shards if _is_alone(shard) and shard.primary]
    stopped = {step.host for step in idle}
    sharded = [[s for s in _steps(shard) if s.host not in stopped] for shard in shards if not _is_alone(shard)]
    waves = _batches(alone, counts)
    columns: list[list[Step]] = []
    for start in range(0, len(sharded), shards_at_once):
        side_by_side = sharded[start : start + shards_at_once]
        for number in range(max(map(len, side_by_side), default=0)):
            columns.append([steps[number] for steps in side_by_side if number < len(steps)])
    if columns and not waves:
        # The canary is one host, also where shards go side by side.
        first, *others = columns[0]
        columns = [[first], *([others] if others else []), *columns[1:]]
    rest = max(len(waves), len(columns) + 1 if waves else len(columns))
    merged = []
    for number in range(rest):
        # With standalone servers, the first of them is the canary of all.
        shift = number - 1 if waves else number
        merged.append(
            (waves[number] if number < len(waves) else []) + (columns[shift] if 0 <= shift < len(columns) else [])
        )
    return Plan([wave for wave in [idle, *merged] if wave], faults, warnings)


def _is_alone(shard: Shard) -> bool:
    return shard.kind == _topology.STANDALONE or (shard.kind == _topology.SENTINEL and not shard.replicas)


def _sizes(sizes: Sequence[Any]) -> list[tuple[int, bool]]:
    """Return each size as a number and whether it is a share of all, in percent. Raises WavesError."""
    found = []
    for size in sizes:
        match = re.fullmatch(r"([1-9]\d*)(%?)", str(size).strip())
        if not match or (match.group(2) and int(match.group(1)) > 100):
            raise WavesError(f"a wave takes a number of hosts, or a share as 10%, not {size!r}")
        found.append((int(match.group(1)), bool(match.group(2))))
    if not found:
        raise WavesError("the list of waves is empty; [100%] changes all standalone servers at once")
    return found


def _batches(steps: Sequence[Step], sizes: Sequence[tuple[int, bool]]) -> list[list[Step]]:
    """Cut the steps into waves; the last size is that of all further waves."""
    waves, start, number = [], 0, 0
    while start < len(steps):
        count, share = sizes[min(number, len(sizes) - 1)]
        taken = max(1, len(steps) * count // 100) if share else count
        waves.append(list(steps[start : start + taken]))
        start, number = start + taken, number + 1
    return waves


def _steps(shard: Shard) -> list[Step]:
    """Return the steps of one shard: its replicas, then its primary, once that has handed over."""
    name = label(shard)
    steps = [Step(replica.host, name) for replica in shard.replicas if replica.host]
    if shard.primary and shard.primary.host:
        heir = successor(shard)
        steps.append(Step(shard.primary.host, name, heir.host if heir else "", handover(shard) if heir else ""))
    return steps


def successor(shard: Shard) -> Copy | None:
    """Return the replica that the primary hands over to: the first that this run changes and that is well."""
    return next((replica for replica in shard.replicas if replica.host and not replica.trouble), None)


def handover(shard: Shard) -> str:
    """Return the command by which the primary hands over; empty where there is none."""
    if shard.kind == _topology.CLUSTER:
        return "CLUSTER FAILOVER"
    if shard.kind == _topology.SENTINEL:
        return "SENTINEL FAILOVER"
    return "FAILOVER" if _host.version_tuple(shard.version) >= FAILOVER_SINCE else ""


def label(shard: Shard) -> str:
    """Return how an operator knows the shard."""
    slots = f" {shard.slots}" if shard.slots else ""
    return f"{shard.kind}{slots} of {shard.primary.name if shard.primary else '?'}"


def _faults(shard: Shard) -> list[str]:
    """Return why a shard would be without a healthy copy on the way, or could not be handed over."""
    if _is_alone(shard) or not shard.primary or not shard.primary.host:
        return []
    name = label(shard)
    if shard.primary.trouble:
        return [f"{name}: {shard.primary.trouble}; mend that first"]
    if not shard.replicas:
        return [f"{name}: it has no replica, so it would be away while {shard.primary.name} starts; give it one"]
    if successor(shard) is None:
        why = "; ".join(
            f"{replica.name}: {replica.trouble or 'the inventory does not hold it'}" for replica in shard.replicas
        )
        return [f"{name}: no replica could take over ({why})"]
    if not handover(shard):
        why = f"Redis {shard.version} has no command to hand over without Sentinel or Cluster (FAILOVER comes with 6.2)"
        return [f"{name}: {why}; promote a replica yourself, or change this shard by itself with -l"]
    return []


def _warnings(shard: Shard) -> list[str]:
    """Return what the operator should know of a shard, a sentence each."""
    name = label(shard)
    found = [
        f"{name}: the {copy.role} {copy.where} is not in the inventory and keeps the modules that it has"
        for copy in shard.copies
        if not copy.host
    ]
    return found + [
        f"{name}: {replica.name} could not take over: {replica.trouble}"
        for replica in shard.replicas
        if replica.host and replica.trouble
    ]


def lines(planned: Plan) -> list[str]:
    """Return the plan as text, a line each."""
    said = []
    for number, wave in enumerate(planned.waves, start=1):
        for step in wave:
            before = f", after it has handed over to {step.handover_to} ({step.command})" if step.handover_to else ""
            said.append(f"wave {number}: {step.host} ({step.shard}){before}")
    said += [f"note: {warning}" for warning in planned.warnings]
    return said + [f"refused: {fault}" for fault in planned.faults]
