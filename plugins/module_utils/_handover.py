# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a primary hands its role to one of its replicas: which way there is, who the heir is, what Sentinel will do.

Pure functions over what servers and Sentinels tell. They touch nothing.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host, _topology

FIRST_CHOICE = 1
"""The replica-priority that Sentinel takes before any other; 0 is for never."""

PING_BYTES = 14
"""What a primary sends its replicas every ten seconds; no write is as short."""

CALM = (0.55, 0.68)
"""How old, in seconds, Sentinel's news of the heir should be when it is told to fail over.

In a failover it asks the heir each second, and tells clients of the new primary once an answer says so. It needs three
rounds of its timer, at most 0.3 s, until it has promoted the heir; so the next answer is the one that says so.
"""


class HandoverError(Exception):
    """The role was not handed over as wanted; the text is for the operator.

    I(changed) is whether anybody's role has changed, I(primary) who is the primary now as C(ADDRESS PORT), empty where
    that is not known.
    """

    def __init__(self, why: str, changed: bool = False, primary: str = "") -> None:
        super().__init__(why)
        self.changed = changed
        self.primary = primary


class Hello(NamedTuple):
    """What a Sentinel says of itself, and of the primary that it watches, every two seconds."""

    address: str
    port: int
    run_id: str
    name: str
    primary: str


def parse_hello(message: str) -> Hello | None:
    """Read a message of the channel C(__sentinel__:hello); None where it is none."""
    words = message.split(",")
    if len(words) != 8 or not (words[1].isdigit() and words[6].isdigit()):
        return None
    return Hello(words[0], int(words[1]), words[2], words[4], f"{words[5]} {words[6]}")


def name_of(hellos: Sequence[Hello]) -> str:
    """Return the name by which Sentinels know the primary. Raises HandoverError where they don't agree."""
    names = sorted({hello.name for hello in hellos})
    if len(names) > 1:
        raise HandoverError(
            f"Sentinels watch this server under several names ({', '.join(names)}), and each of them would act by "
            "itself; leave one, by SENTINEL REMOVE"
        )
    return names[0]


def way(info: Mapping[str, str], sentinels: int) -> str:
    """Return the command by which the role is handed over; empty where there is none."""
    if _topology.is_clustered(info):
        return _topology.CLUSTER_FAILOVER
    if sentinels:
        return _topology.SENTINEL_FAILOVER
    return _topology.FAILOVER if version(info) >= _topology.FAILOVER_SINCE else ""


def version(info: Mapping[str, str]) -> tuple[int, ...]:
    """Return a server's version, by its INFO."""
    return _host.version_tuple(info.get("redis_version", "0"))


def primary_of(info: Mapping[str, str]) -> str:
    """Return whom a server follows, in a cluster too, as C(ADDRESS PORT), by its INFO; empty for a primary."""
    if info.get("role") != "slave":
        return ""
    return f"{info.get('master_host', '')} {info.get('master_port', '')}"


def is_one_of(where: str, addresses: Sequence[str], port: int) -> bool:
    """Whether C(ADDRESS PORT) is the server at that port of a host with these addresses."""
    return where in [f"{address} {port}" for address in addresses]


def link_up(info: Mapping[str, str]) -> bool:
    """Whether a replica has its primary's data and goes on taking it over."""
    return info.get("master_link_status") == "up" and info.get("master_sync_in_progress", "0") == "0"


def heir_in(replicas: Sequence[Mapping[str, str]], addresses: Sequence[str], port: int) -> str:
    """Return the address under which the primary knows the heir. Raises HandoverError where it can't be one.

    I(replicas) are those of INFO.
    """
    for replica in replicas:
        where = f"{replica.get('ip', '')} {replica.get('port', '')}"
        if not is_one_of(where, addresses, port):
            continue
        if replica.get("state") != "online":
            raise HandoverError(f"{where} follows this server, but is not in sync yet ({replica.get('state')})")
        return str(replica["ip"])
    others = ", ".join(f"{replica.get('ip')} {replica.get('port')}" for replica in replicas) or "nobody"
    raise HandoverError(f"{addresses[0]} {port} does not follow this server; who does: {others}")


def refuse_node(nodes: Sequence[_topology.Node], myself: str, addresses: Sequence[str], port: int) -> None:
    """Raise HandoverError where the cluster does not know the heir as a healthy replica of the node I(myself)."""
    for node in nodes:
        address, _colon, its_port = node.where.rpartition(":")
        if not is_one_of(f"{address} {its_port}", addresses, port):
            continue
        if node.primary != myself:
            raise HandoverError(f"the cluster does not know {address} {port} as a replica of this node")
        if node.flags & {"fail", "fail?"} or not node.connected:
            raise HandoverError(f"the cluster takes {address} {port} for failed")
        return
    raise HandoverError(f"the cluster does not know {addresses[0]} {port}")


def offset(info: Mapping[str, str]) -> int:
    """Return how far a server is in the stream of replication."""
    return int(info.get("slave_repl_offset" if info.get("role") == "slave" else "master_repl_offset") or 0)


def acknowledged(replicas: Sequence[Mapping[str, str]], where: str) -> int:
    """Return how far the replica at C(ADDRESS PORT) has said to be, by its primary's INFO; -1 where it is none."""
    for replica in replicas:
        if f"{replica.get('ip')} {replica.get('port')}" == where:
            return int(replica.get("offset") or 0)
    return -1


def missing(former: Mapping[str, str], new: Mapping[str, str]) -> int:
    """Return how many bytes of the former primary's stream the new primary was promoted without.

    Both are INFO; that of the former one is from before it follows. -1 where it can't be told.
    """
    if new.get("master_replid2") != former.get("master_replid"):
        return -1
    behind = offset(former) - (int(new.get("second_repl_offset") or 0) - 1)
    return 0 if behind <= PING_BYTES else behind


# Sentinel


def tables(reply: Any) -> list[dict[str, str]]:
    """Read the answer of SENTINEL REPLICAS, or of SENTINEL MASTER as its only entry."""
    return [{key: str(_client.text(value)) for key, value in _client.pairs(entry).items()} for entry in reply]


def entry_of(replicas: Sequence[Mapping[str, str]], where: str) -> Mapping[str, str]:
    """Return what Sentinel knows of the replica at C(ADDRESS PORT). Raises HandoverError where it knows none."""
    for replica in replicas:
        if f"{replica.get('ip')} {replica.get('port')}" == where:
            return replica
    known = ", ".join(f"{replica.get('ip')} {replica.get('port')}" for replica in replicas) or "none"
    raise HandoverError(f"Sentinel does not know the replica {where}; it knows {known}")


def priority(replica: Mapping[str, str]) -> int:
    """Return the replica-priority of an entry of SENTINEL REPLICAS."""
    return int(replica.get("slave-priority") or 100)


def comes_first(replicas: Sequence[Mapping[str, str]], where: str) -> bool:
    """Whether Sentinel would prefer the replica at I(where) to all others: the lowest priority but 0 wins."""
    heir = entry_of(replicas, where)
    others = [priority(replica) for replica in replicas if replica is not heir]
    return 0 < priority(heir) < min((other for other in others if other), default=1 << 31)


def refuse_priority(replicas: Sequence[Mapping[str, str]], where: str) -> None:
    """Raise HandoverError where Sentinel can't be made to choose the replica at I(where)."""
    heir = entry_of(replicas, where)
    if priority(heir) == 0:
        raise HandoverError(f"{where} has the replica-priority 0, so Sentinel never promotes it; choose another heir")
    rivals = [replica for replica in replicas if replica is not heir and priority(replica) == FIRST_CHOICE]
    if rivals:
        rival = f"{rivals[0].get('ip')} {rivals[0].get('port')}"
        raise HandoverError(
            f"{rival} has the replica-priority {FIRST_CHOICE}, so Sentinel might promote it instead; "
            "give it a higher one, or make it the heir"
        )


def is_settled(primary: Mapping[str, str]) -> bool:
    """Whether Sentinel knows who its primary is by now, as SENTINEL MASTER tells.

    A failover is over for it once it has heard from every replica, the former primary among them; from then on, until
    the new primary has answered its INFO, it has no run id of it.
    """
    return bool(primary.get("runid")) and "failover_in_progress" not in primary.get("flags", "").split(",")


def sentinel_trouble(primary: Mapping[str, str], replica: Mapping[str, str]) -> str:
    """Return why Sentinel would not promote the replica just now; empty where it would. Both are its own entries."""
    if "failover_in_progress" in primary.get("flags", ""):
        return "a failover is under way already"
    for what, entry, good in (("this server", primary, "master"), ("the heir", replica, "slave")):
        if entry.get("flags") != good:
            return f"it takes {what} for {entry.get('flags')}"
    return ""


def promoted(replicas: Sequence[Mapping[str, str]]) -> str:
    """Return whom Sentinel has chosen, as C(ADDRESS PORT); empty as long as it has not."""
    for replica in replicas:
        if "promoted" in replica.get("flags", "").split(","):
            return f"{replica.get('ip')} {replica.get('port')}"
    return ""


def age(replica: Mapping[str, str]) -> float:
    """Return how many seconds ago Sentinel last heard of a replica."""
    return int(replica.get("info-refresh") or 0) / 1000


def is_calm(seconds: float) -> bool:
    """Whether Sentinel's news of the heir is of the age at which clients wait least; see CALM."""
    return CALM[0] <= seconds <= CALM[1]


def standing(here: Mapping[str, str] | None, heir: Mapping[str, str] | None, where: str) -> str:
    """Return who is the primary now, in a sentence; None is for a server that does not answer. I(where) is the heir."""
    mine = "does not answer" if here is None else _role(here)
    its = "does not answer" if heir is None else _role(heir)
    return f"Now this server {mine}, and {where} {its}"


def _role(info: Mapping[str, str]) -> str:
    above = primary_of(info)
    if not above:
        return "is a primary"
    return f"follows {above}" + ("" if link_up(info) else ", with the link down")
