# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server and the shard that it is a copy of are well. Pure functions over what INFO and CLUSTER say."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _topology

SLOTS = 16384
REJECTED_MORE = 5.0
"""How many rejected calls a second are no rise: a client that asks for what it may not do, now and then."""


class Counters(NamedTuple):
    """What a server has counted since it started: I(run_id) names the start, I(uptime) is in seconds.

    I(unexpected) are errors that a replica met in its primary's writes, I(rejected) calls that never ran.
    """

    run_id: str = ""
    uptime: int = 0
    unexpected: int = 0
    rejected: int = 0


class Seen(NamedTuple):
    """One look.

    I(own) and I(primary) are the INFO of the server and of its shard's primary, the same where it is itself one;
    I(primary) is empty where nobody could ask it, and I(primary_error) says why. I(offset) is how far the primary was
    when the wait began. I(state) is CLUSTER INFO and I(nodes) CLUSTER NODES, both empty outside of a cluster.
    I(latency) is the longest of some PINGs in milliseconds.
    """

    own: Mapping[str, str]
    primary: Mapping[str, str]
    primary_error: str = ""
    offset: int = 0
    state: Mapping[str, str] = {}
    nodes: str = ""
    latency: float = 0.0


def counters(info: Mapping[str, str], withheld: Sequence[str] = ()) -> Counters:
    """Return the counters in INFO, with the section of the commands; what is rejected of I(withheld) is meant to be."""
    mute = {f"cmdstat_{command.lower()}" for command in withheld}
    stats = (value for name, value in info.items() if name.startswith("cmdstat_") and name.lower() not in mute)
    calls = (re.search(r"rejected_calls=(\d+)", value) for value in stats)
    return Counters(
        info.get("run_id", ""),
        int(info.get("uptime_in_seconds") or 0),
        int(info.get("unexpected_error_replies") or 0),
        sum(int(found.group(1)) for found in calls if found),
    )


def offset(info: Mapping[str, str]) -> int:
    """Return how far a primary is in the stream of replication, in bytes."""
    return int(info.get("master_repl_offset") or 0)


def faults(seen: Seen, replicas: int, longest: float, others: bool = False) -> list[str]:
    """Return why the server or its shard is not well by now, a sentence each.

    I(replicas) is how many the primary has to have, I(longest) the bound of the latency in milliseconds; 0 is none.
    With I(others), only the other copies count: this one may be the one that has to be mended.
    """
    of_its_own = _loading(seen.own) + _link(seen.own)
    found = [] if others else list(of_its_own)
    if seen.primary_error and not (others and of_its_own):
        found.append(f"its primary can't be asked: {seen.primary_error}")
    if seen.primary:
        found += _replicas(seen.primary, replicas - (1 if others and of_its_own else 0), seen.offset)
    if seen.state:
        found += _cluster(seen.state, seen.nodes)
    if longest and seen.latency > longest:
        found.append(f"a PING takes up to {seen.latency:.1f} ms, more than {longest:g}")
    return found


def unreadable(modules: Mapping[str, int], of_primary: Mapping[str, int]) -> list[str]:
    """Return why a server with I(modules), name to version, might not read the data of a primary with those others.

    It has come to data of a release that is newer, or of a module that is not there at all.
    """
    return [
        f"its primary runs {name} {version}, whose data "
        + (f"{modules[name]} may not read" if name in modules else "it could not read without that module")
        for name, version in of_primary.items()
        if version > modules.get(name, -1)
    ]


def is_sound(seen: Seen) -> bool:
    """Whether the server is itself a copy that the others could rely on."""
    return not _loading(seen.own) + _link(seen.own)


def _loading(own: Mapping[str, str]) -> list[str]:
    return ["it is loading its data"] if own.get("loading") == "1" else []


def _link(own: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a replica's link to its primary."""
    if own.get("role") != "slave":
        return []
    if own.get("master_sync_in_progress") == "1":
        return ["it is taking over its primary's data"]
    if own.get("master_link_status") != "up":
        return [f"its link to its primary {own.get('master_host')}:{own.get('master_port')} is down"]
    return []


def _replicas(primary: Mapping[str, str], wanted: int, reached: int) -> list[str]:
    """Return which replicas are missing or behind where the primary was."""
    known = _topology.parse_replicas(primary)
    online = [replica for replica in known if replica.get("state") == "online"]
    found = []
    if len(online) < wanted:
        names = ", ".join(_name(replica) for replica in online) or "none"
        found.append(f"the primary has {len(online)} replicas in sync ({names}), and should have {wanted}")
    behind = [replica for replica in online if int(replica.get("offset") or 0) < reached]
    found += [f"the replica {_name(r)} is {reached - int(r.get('offset') or 0)} bytes behind" for r in behind]
    return found


def _name(replica: Mapping[str, str]) -> str:
    return f"{replica.get('ip', '?')}:{replica.get('port', '?')}"


def _cluster(state: Mapping[str, str], nodes: str) -> list[str]:
    """Return what is wrong with the cluster, as this node sees it."""
    if state.get("cluster_known_nodes") == "1" and state.get("cluster_slots_assigned") == "0":
        return []  # It has met nobody yet, so there is no cluster to be well.
    found = []
    if state.get("cluster_state") != "ok":
        found.append(f"cluster_state is {state.get('cluster_state', 'not told')}")
    if int(state.get("cluster_slots_ok") or 0) < SLOTS:
        found.append(f"{state.get('cluster_slots_ok', 0)} of {SLOTS} slots are covered")
    for node in _topology.parse_nodes(nodes):
        # A node that was forgotten by its own cluster has no address.
        if node.flags & {"fail", "fail?"} and "noaddr" not in node.flags:
            found.append(f"the cluster takes {node.where} for failed")
    return found


def rises(name: str, before: Counters, after: Counters, later: Counters) -> list[str]:
    """Return which errors rose on one server: I(before) the change, I(after) it, and I(later), some seconds after that.

    A restart starts all counters anew. Rejected calls are compared by the second, with the average of before.
    """
    if later.run_id != after.run_id:
        return [f"{name} has started again by itself"]
    found = []
    base = before.unexpected if later.run_id == before.run_id else 0
    if later.unexpected > base:
        found.append(f"{name} met {later.unexpected - base} errors in what its primary sent it")
    usual = before.rejected / before.uptime if before.uptime else 0.0
    now = (later.rejected - after.rejected) / max(1, later.uptime - after.uptime)
    if now > 2 * usual + REJECTED_MORE:
        found.append(f"{name} rejects {now:.0f} calls a second; before the change it rejected {usual:.0f}")
    return found


def all_rises(before: Sequence[Counters], after: Seen, later: Seen, withheld: Sequence[str] = ()) -> list[str]:
    """Return which errors rose on a server and on its primary; what is rejected of I(withheld) is meant to be.

    I(before) are the counters of the server and of its primary before the change, as counters() returned them. A
    primary that was none by then is compared with itself.
    """
    known = {counted.run_id: counted for counted in before}
    own = counters(after.own, withheld)
    found = rises("it", known.get(own.run_id, before[0]), own, counters(later.own, withheld))
    if after.primary and after.primary is not after.own:
        primary = counters(after.primary, withheld)
        found += rises("its primary", known.get(primary.run_id, primary), primary, counters(later.primary, withheld))
    return found


def as_counters(value: Mapping[str, Any]) -> Counters:
    """Return the counters of an earlier look, as a module's argument gives them back."""
    return Counters(str(value["run_id"]), int(value["uptime"]), int(value["unexpected"]), int(value["rejected"]))


def primary_of(info: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port of the primary that a replica follows, in a cluster too."""
    return info.get("master_host", ""), int(info.get("master_port") or 0)
