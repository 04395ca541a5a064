# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who follows whom in a fleet, as the servers themselves tell it: never from groups of the inventory.

Pure functions over what redis_topology_info returns of each host. They touch nothing.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf

STANDALONE = "standalone"
REPLICATION = "replication"
SENTINEL = "sentinel"
CLUSTER = "cluster"

CLUSTER_FAILOVER = "CLUSTER FAILOVER"
SENTINEL_FAILOVER = "SENTINEL FAILOVER"
FAILOVER = "FAILOVER"
"""The commands by which a primary's role goes to a replica."""

FAILOVER_SINCE = (6, 2)
"""From here on: FAILOVER, and CLIENT PAUSE for writes alone."""

HELLO_CHANNEL = "__sentinel__:hello"
"""Each Sentinel subscribes to it at each server that it watches."""

PRIMARY = "primary"
REPLICA = "replica"


class Copy(NamedTuple):
    """One server of a shard: I(host) is its inventory name, empty where the inventory does not hold it.

    I(where) is C(ADDRESS:PORT). I(trouble) says why it could not stand in for another copy; empty where it could.
    """

    host: str
    where: str
    role: str
    trouble: str = ""

    @property
    def name(self) -> str:
        """Return how an operator knows it."""
        return self.host or self.where


class Shard(NamedTuple):
    """Servers that hold the same data: a primary, where it is known, and its replicas; I(version) is the primary's."""

    kind: str
    primary: Copy | None
    replicas: tuple[Copy, ...] = ()
    version: str = ""
    slots: str = ""

    @property
    def copies(self) -> tuple[Copy, ...]:
        """Return all of them, replicas first."""
        return (*self.replicas, *([self.primary] if self.primary else []))


class Node(NamedTuple):
    """One line of CLUSTER NODES: I(primary) is the id of the node that it follows, empty for a primary."""

    id: str
    where: str
    flags: frozenset[str]
    primary: str
    connected: bool
    slots: tuple[str, ...]


def is_clustered(info: Mapping[str, str]) -> bool:
    """Whether a server is a node of a cluster, by its INFO."""
    return info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster"


def followed(info: Mapping[str, str]) -> str:
    """Return the primary that a running server follows by C(replicaof), as C(HOST PORT), by its INFO.

    Empty where it follows none; a cluster's replica follows by other means.
    """
    if info.get("role") != "slave" or is_clustered(info):
        return ""
    return f"{info.get('master_host', '')} {info.get('master_port', '')}"


def declared_primary(directives: Sequence[_conf.Directive]) -> str:
    """Return the primary that a server with this redis.conf follows, as C(HOST PORT); empty where it names none."""
    return _conf.value(directives, "replicaof", "") or _conf.value(directives, "slaveof", "")


def parse_nodes(text: str) -> list[Node]:
    """Read CLUSTER NODES; slots that are on their way from or to another node are left out."""
    nodes = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 8:
            continue
        # ADDRESS:PORT@BUSPORT, and a name behind a comma from 7.0 on.
        where = words[1].split(",")[0].split("@")[0]
        slots = tuple(word for word in words[8:] if not word.startswith("["))
        primary = "" if words[3] == "-" else words[3]
        nodes.append(Node(words[0], where, frozenset(words[2].split(",")), primary, words[7] == "connected", slots))
    return nodes


def parse_replicas(info: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the C(slaveN) fields of INFO replication, each as a dict: ip, port, state, offset, lag."""
    found = []
    for field in sorted((name for name in info if re.fullmatch(r"slave\d+", name)), key=lambda name: int(name[5:])):
        pairs = (pair.partition("=")[::2] for pair in info[field].split(","))
        found.append(dict(pairs))
    return found


def shards(told: Mapping[str, Mapping[str, Any]]) -> list[Shard]:
    """Return the shards of a fleet, in the order of I(told): inventory name to what redis_topology_info returned.

    A host whose server does not answer is in one only where its redis.conf says whom it follows.
    """
    known = {h: {**UNKNOWN, **server} for h, server in told.items() if server.get("running") or server.get("primary")}
    clustered = {host: server for host, server in known.items() if server["cluster"]}
    return _replicated({h: s for h, s in known.items() if h not in clustered}) + _clustered(clustered)


UNKNOWN: dict[str, Any] = {"version": "", "replicas": [], "sentinels": 0, "cluster": False}
"""What a server that does not answer does not tell."""


# Replication


LOOPBACK = re.compile(r"127\.|::1$|localhost$")


def _host_of(where: str, servers: Mapping[str, Mapping[str, Any]], teller: str) -> str:
    """Return the inventory name of the server at C(ADDRESS PORT) or C(ADDRESS:PORT); empty where none is there.

    I(teller) is the server that says so: for it, a loopback address is another instance on its own host.
    """
    address, port = re.split(r"[ :](?=\d+$)", where)
    own = servers[teller]["addresses"] if LOOPBACK.match(address) else []
    for host, server in servers.items():
        if int(port) == server["port"] and (
            address in (host, *server["addresses"]) or (own and own == server["addresses"])
        ):
            return host
    return ""


def _root(host: str, servers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return whom a server follows in the end: an inventory name, or C(ADDRESS:PORT) of one outside."""
    seen = {host}
    while servers[host]["primary"]:
        above = _host_of(servers[host]["primary"], servers, host)
        if not above:
            return str(servers[host]["primary"]).replace(" ", ":")
        if above in seen:
            return host
        seen.add(above)
        host = above
    return host


def _replicated(servers: Mapping[str, Mapping[str, Any]]) -> list[Shard]:
    """Return the shards of servers that are in no cluster."""
    groups: dict[str, list[str]] = {}
    for host in servers:
        groups.setdefault(_root(host, servers), []).append(host)
    return [_group(root, hosts, servers) for root, hosts in groups.items()]


def _group(root: str, hosts: Sequence[str], servers: Mapping[str, Mapping[str, Any]]) -> Shard:
    """Return the shard of a primary and all that follow it, near or far."""
    replicas = [Copy(h, _where(servers[h]), REPLICA, trouble(servers[h])) for h in hosts if h != root]
    for host in hosts:
        for replica in servers[host]["replicas"]:
            where = f"{replica.get('ip', '?')}:{replica.get('port', '0')}"
            if not _host_of(where, servers, host):
                why = "" if replica.get("state") == "online" else "it is not in sync"
                replicas.append(Copy("", where, REPLICA, why))
    if root not in servers:
        return Shard(REPLICATION, Copy("", root, PRIMARY), tuple(replicas))
    server = servers[root]
    kind = SENTINEL if any(servers[host]["sentinels"] for host in hosts) else REPLICATION if replicas else STANDALONE
    return Shard(kind, Copy(root, _where(server), PRIMARY), tuple(replicas), server["version"])


def _where(server: Mapping[str, Any]) -> str:
    return f"{(list(server['addresses']) or ['?'])[0]}:{server['port']}"


def trouble(replica: Mapping[str, Any]) -> str:
    """Return why a replica could not take over; empty where it could."""
    if not replica["running"]:
        return "it does not run"
    if replica["syncing"]:
        return "it is taking over its primary's data"
    if not replica["link_up"]:
        return "its link to the primary is down"
    if replica["priority"] == 0:
        return "its replica-priority is 0"
    return ""


# Cluster


def _clustered(servers: Mapping[str, Mapping[str, Any]]) -> list[Shard]:
    """Return the shards of all clusters; each cluster is seen through its first host's eyes."""
    found: list[Shard] = []
    hosts = {server["node_id"]: host for host, server in servers.items()}
    seen: set[str] = set()
    for server in servers.values():
        if server["node_id"] in seen:
            continue
        nodes = [node for node in parse_nodes(server["nodes"]) if not node.flags & {"noaddr", "handshake"}]
        seen |= {node.id for node in nodes}
        for node in nodes:
            if not node.primary:
                followers = [other for other in nodes if other.primary == node.id]
                replicas = tuple(_copy(other, hosts, servers) for other in followers)
                version = str(servers[hosts[node.id]]["version"]) if node.id in hosts else ""
                found.append(Shard(CLUSTER, _copy(node, hosts, servers), replicas, version, " ".join(node.slots)))
    return found


def _copy(node: Node, hosts: Mapping[str, str], servers: Mapping[str, Mapping[str, Any]]) -> Copy:
    """Return a node as a copy of its shard; its own word on its link counts beside what others say of it."""
    host = hosts.get(node.id, "")
    why = ""
    if node.flags & {"fail", "fail?"} or not node.connected:
        why = "the cluster takes it for failed"
    elif node.primary and host:
        why = trouble(servers[host])
    return Copy(host, node.where, REPLICA if node.primary else PRIMARY, why)
