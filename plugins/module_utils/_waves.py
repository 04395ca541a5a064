# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order a fleet is changed, so that no shard is without a healthy copy. Pure functions."""

from __future__ import annotations

import itertools
import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _topology
from ansible_collections.edgeops.redis_modules.plugins.module_utils._topology import Copy, Shard

WAVES = ("1", "10%", "30%", "100%")
"""How many standalone servers each wave takes: a canary, then ever more of all."""


class WavesError(ValueError):
    """What is wrong with the sizes of the waves; the text is for the operator."""


class Step(NamedTuple):
    """One host in a wave.

    Before it is changed, it hands its role over to I(handover_to) by I(command), where given; the heir is asked at
    I(addresses) and I(port). I(replicas) is how many replicas its shard's primary has to have while it is changed.
    I(role) is what it was when the plan was made; empty for one that stands alone.
    I(withheld) names the modules that clients may not use yet, as other copies of the shard lack them. I(leaving) names
    those that leave the shard: clients may no longer use them from before its first copy is changed.
    """

    host: str
    shard: str
    handover_to: str = ""
    command: str = ""
    addresses: tuple[str, ...] = ()
    port: int = 0
    replicas: int = 0
    withheld: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    role: str = ""


class Plan(NamedTuple):
    """The waves, what stands against them, and what the operator should know."""

    waves: list[list[Step]]
    faults: list[str]
    warnings: list[str]


class Wishes(NamedTuple):
    """What the operator has a say in.

    I(sizes) are those of the waves of standalone servers, I(shards_at_once) how many shards go side by side. I(users)
    says whether users are declared, as commands can be withheld from them. I(fresh) are hosts whose server did not run
    before this rollout began. I(restart) lets a primary that has nobody to hand over to, or no command for it, be
    changed where it is. I(unseen) lets a server that runs and does not answer be changed, as one that stands alone.
    I(settled) are hosts that are as wanted, so that they are no more than copies, and heirs, of others.
    """

    sizes: Sequence[Any] = WAVES
    shards_at_once: int = 1
    users: bool = False
    fresh: Sequence[str] = ()
    restart: bool = False
    unseen: bool = False
    settled: Sequence[str] = ()


NO_WISHES = Wishes()

LOST = (
    "it was not reached, or failed before, so nobody knows whose copy it is; mend it, leave it out with -l, or set "
    "redis_rollout_allow_lost"
)


def plan(told: Mapping[str, Mapping[str, Any]], wishes: Wishes = NO_WISHES) -> Plan:
    """Return the order in which the hosts of I(told) are changed.

    I(told) maps inventory names to what redis_topology_info returned. Hosts whose server does not run go first, at
    once. Then comes one host alone, the canary; then standalone servers by their waves, and shards some at a time, each
    replica by replica, and its primary last, after it has handed over. Raises WavesError.
    """
    counts = _sizes(wishes.sizes)
    # A shard of which nothing changes is nobody's business, be it well or not.
    shards = [shard for shard in _topology.shards(told) if {c.host for c in shard.copies} - {"", *wishes.settled}]
    silent = [host for host, server in told.items() if _is_silent(server)]
    faults = [f"{host}: {LOST}" for host in told if not told[host]]
    faults += [] if wishes.unseen else [_silence(host, told[host]) for host in silent]
    faults += [fault for shard in shards for fault in _faults(shard, wishes)]
    warnings = [warning for shard in shards for warning in _warnings(shard)]
    if not wishes.users:
        warnings += [_not_withheld(shard, told) for shard in shards]
    idle = [
        Step(host, "not running")
        for host, server in told.items()
        if server and host not in silent and (not server["running"] or (host in wishes.fresh and _is_empty(server)))
    ]
    placed = {*(step.host for step in idle), *wishes.settled}
    alone = [
        Step(shard.primary.host, "standalone")
        for shard in shards
        if _is_alone(shard) and shard.primary and shard.primary.host not in placed
    ]
    in_shards = {copy.host for shard in shards for copy in shard.copies}
    alone += [Step(host, "does not answer") for host in silent if host not in in_shards]
    sharded = [
        [step for step in _steps(shard, told, wishes.users) if step.host not in placed]
        for shard in shards
        if not _is_alone(shard)
    ]
    waves = _batches(alone, counts)
    columns: list[list[Step]] = []
    for start in range(0, len(sharded), wishes.shards_at_once):
        side_by_side = sharded[start : start + wishes.shards_at_once]
        for number in range(max(map(len, side_by_side), default=0)):
            columns.append([steps[number] for steps in side_by_side if number < len(steps)])
    if columns and not waves:
        # The canary is one host, also where shards go side by side.
        first, *others = columns[0]
        columns = [[first], *([others] if others else []), *columns[1:]]
    # With standalone servers, the first of them is the canary of all.
    beside = [[], *columns] if waves else columns
    nobody: list[Step] = []
    merged = [single + others for single, others in itertools.zip_longest(waves, beside, fillvalue=nobody)]
    return Plan([wave for wave in [idle, *merged] if wave], faults, [said for said in warnings if said])


def _is_silent(server: Mapping[str, Any]) -> bool:
    """Whether a server runs and does not answer, so that nobody knows whose copy it is."""
    return bool(server) and not server["running"] and bool(server.get("process"))


def _silence(host: str, server: Mapping[str, Any]) -> str:
    return (
        f"{host}: its server runs and does not answer, so nobody knows whose copy it is ({server['error']}). Correct "
        "redis_server_requirepass or redis_modules_login, or set redis_rollout_allow_unseen where it stands alone"
    )


def _is_empty(server: Mapping[str, Any]) -> bool:
    """Whether a server that a package has just started is in nobody's service yet."""
    return not server["primary"] and not server["replicas"] and not server["cluster"]


def _is_alone(shard: Shard) -> bool:
    """Whether nobody else has its data; a node of a cluster that serves no slots yet has none itself."""
    no_data = shard.kind == _topology.CLUSTER and not shard.slots
    return shard.kind == _topology.STANDALONE or (not shard.replicas and (shard.kind == _topology.SENTINEL or no_data))


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


def _steps(shard: Shard, told: Mapping[str, Mapping[str, Any]], users: bool) -> list[Step]:
    """Return the steps of one shard: its replicas, then its primary, once that has handed over."""
    step = Step(
        "",
        label(shard),
        # One outside of the inventory that is not well is not going to be mended by this run.
        replicas=len([replica for replica in shard.replicas if replica.host or not replica.trouble]),
        withheld=withheld(shard, told) if users else (),
        leaving=_of_copies(shard, told, "leaves"),
    )
    steps = [step._replace(host=copy.host, role=copy.role) for copy in shard.copies if copy.host]
    if shard.primary and shard.primary.host:
        heir, command = successor(shard), handover(shard)
        if heir and command:
            address, port = heir.where.rsplit(":", 1)
            addresses = dict.fromkeys([address, *told[heir.host]["addresses"]])
            if set(addresses) & set(told[shard.primary.host]["addresses"]):
                # Two servers of one host may know each other by its loopback.
                addresses.update(dict.fromkeys(("127.0.0.1", "::1")))
            steps[-1] = steps[-1]._replace(
                handover_to=heir.host, command=command, addresses=tuple(addresses), port=int(port)
            )
    return steps


def withheld(shard: Shard, told: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the declared modules that a copy of the shard does not run yet: it would drop what clients write by them.

    What copies outside of the inventory run is not known, and this run does not change it; nor does a server tell it
    that does not run.
    """
    return _of_copies(shard, told, "lacks")


def _of_copies(shard: Shard, told: Mapping[str, Mapping[str, Any]], field: str) -> tuple[str, ...]:
    """Return what the copies of a shard tell in a field that is a list, each once."""
    found = [told[copy.host].get(field, []) for copy in shard.copies if copy.host]
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


def successor(shard: Shard) -> Copy | None:
    """Return the replica that the primary hands over to: the first that this run changes and that is well."""
    return next((replica for replica in shard.replicas if replica.host and not replica.trouble), None)


def handover(shard: Shard) -> str:
    """Return the command by which the primary hands over; empty where there is none."""
    if shard.kind == _topology.CLUSTER:
        return _topology.CLUSTER_FAILOVER
    if shard.kind == _topology.SENTINEL:
        return _topology.SENTINEL_FAILOVER
    return _topology.FAILOVER if _host.version_tuple(shard.version) >= _topology.FAILOVER_SINCE else ""


def label(shard: Shard) -> str:
    """Return how an operator knows the shard."""
    slots = f" {shard.slots}" if shard.slots else ""
    return f"{shard.kind}{slots} of {shard.primary.name if shard.primary else '?'}"


def _not_withheld(shard: Shard, told: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a warning where clients can't be kept from a module that not all copies have; empty where all is well."""
    names = [] if _is_alone(shard) else withheld(shard, told)
    if not names:
        return ""
    return (
        f"{label(shard)}: {' and '.join(names)} is new to it, and a copy that lacks it drops what clients write by it; "
        "without redis_server_acl_users nothing keeps them from it, so let them use it only when this run has ended"
    )


def _faults(shard: Shard, wishes: Wishes) -> list[str]:
    """Return why a shard would be without a healthy copy on the way, or could not be handed over."""
    if _is_alone(shard) or not shard.primary or not shard.primary.host:
        return []
    name = label(shard)
    if shard.primary.trouble:
        return [f"{name}: {shard.primary.trouble}; mend that first"]
    if shard.primary.host in wishes.settled:
        # It stays what it is, so nobody has to take over.
        return []
    restart = wishes.restart
    knowingly = "or set redis_rollout_without_handover to restart, to have it away while it starts"
    if not shard.replicas:
        return [] if restart else [f"{name}: it has no replica to hand over to; give it one, {knowingly}"]
    if successor(shard) is None:
        why = "; ".join(
            f"{replica.name}: {replica.trouble or 'the inventory does not hold it'}" for replica in shard.replicas
        )
        return [f"{name}: no replica could take over ({why})"]
    if not handover(shard) and not restart:
        why = f"Redis {shard.version} has no command to hand over without Sentinel or Cluster (FAILOVER comes with 6.2)"
        return [f"{name}: {why}; promote a replica yourself, {knowingly}"]
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
            if step.withheld:
                before += f", {' and '.join(step.withheld)} withheld from clients until all copies have it"
            if step.leaving:
                before += f", {' and '.join(step.leaving)} withheld from clients before the first copy loses it"
            said.append(f"wave {number}: {step.host} ({step.shard}){before}")
    said += [f"note: {warning}" for warning in planned.warnings]
    return said + [f"refused: {fault}" for fault in planned.faults]


def halt(
    waves: Sequence[Sequence[Mapping[str, Any]]],
    number: int,
    unfinished: Sequence[str],
    failed: Sequence[str] = (),
    stop_after: int = 0,
    pause_file: str = "",
) -> str:
    """Return why wave I(number) (from 1) is not to begin; empty where it is.

    I(unfinished) are the hosts that were not seen to be well after a change by now, I(failed) those that have failed.
    I(pause_file) is empty unless it is there.
    """
    hosts = [step["host"] for wave in waves for step in wave]
    before = [step["host"] for wave in waves[: number - 1] for step in wave]
    missing = [host for host in hosts if host in failed or (host in unfinished and host in before)]
    if missing:
        return f"{', '.join(missing)} did not pass"
    if number > 1 and pause_file:
        return f"there is a file {pause_file}; take it away and run it again to go on"
    if 0 < stop_after < number:
        return f"redis_rollout_stop_after is {stop_after}; run it again without it to go on"
    return ""


def progress(
    waves: Sequence[Sequence[Mapping[str, Any]]], unfinished: Sequence[str], halted: Mapping[str, str]
) -> list[str]:
    """Return how far a rollout came, a line each; I(halted) says of each host why its wave did not begin."""
    hosts = [step["host"] for wave in waves for step in wave]
    said = [f"{len([host for host in hosts if host not in unfinished])} of {len(hosts)} hosts passed all gates"]
    left = [host for host in hosts if halted.get(host)]
    if left:
        number = next(step["wave"] for wave in waves for step in wave if step["host"] == left[0])
        said.append(f"stopped before wave {number} of {len(waves)}: {halted[left[0]]}")
        said.append(f"not reached, so as before: {', '.join(left)}")
    return said
