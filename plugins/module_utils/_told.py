# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running server tells of its place in a fleet; _topology makes shards of it."""

from __future__ import annotations

import re
import socket
from typing import Any, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host, _topology


def addresses(run: _host.Run) -> list[str]:
    """Return the addresses of this host but for its loopback and those of a link; by C(hostname -I) or its own name."""
    code, out, _err = run(["hostname", "-I"])
    found = out.split() if code == 0 else socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in found if not re.match(r"127\.|::1$|fe80:", address)]


def tell(
    client: _client.Client,
    info: dict[str, str],
    running: Sequence[str],
    present: Sequence[str],
    absent: Sequence[str],
    where: list[str],
) -> dict[str, Any]:
    """Return the C(server) of what redis_topology_info returns.

    I(info) is its INFO, I(running) the names of its modules, I(present) and I(absent) those that are declared, I(where)
    the addresses of the host. Raises ServerError.
    """
    clustered = _topology.is_clustered(info)
    told: dict[str, Any] = {
        "running": True,
        "error": "",
        "addresses": where,
        "port": int(info.get("tcp_port") or 0),
        "version": info.get("redis_version", ""),
        "primary": _topology.followed(info),
        "link_up": info.get("role") != "slave" or info.get("master_link_status") == "up",
        "syncing": info.get("master_sync_in_progress") == "1",
        "priority": int(info.get("slave_priority") or 100),
        "offset": int(info.get("slave_repl_offset") or info.get("master_repl_offset") or 0),
        "lacks": [name for name in present if name not in running],
        "leaves": [name for name in absent if name in running],
        "replicas": [] if clustered else _topology.parse_replicas(info),
        "sentinels": int(client.call("PUBSUB", "NUMSUB", _topology.HELLO_CHANNEL)[1]),
        "cluster": clustered,
        "cluster_state": "",
        "node_id": "",
        "nodes": "",
    }
    if clustered:
        state = _client.parse_info(client.call("CLUSTER", "INFO"))
        told.update(
            cluster_state=state.get("cluster_state", ""),
            node_id=str(_client.text(client.call("CLUSTER", "MYID"))),
            nodes=str(_client.text(client.call("CLUSTER", "NODES"))),
        )
    return told
