#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whom the server of a host follows, who follows it, and which cluster it is a node of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_topology_info
short_description: Tell whom a server follows, who follows it, and which cluster it is a node of
version_added: 0.1.0
description:
  - Asks the running server alone (C(INFO), C(PUBSUB NUMSUB), C(CLUSTER NODES)); the inventory has no say in it.
  - A server that does not run, or does not answer, is no error; whom it would follow, its redis.conf tells.
  - The filter P(edgeops.redis_modules.rollout_plan#filter) makes an order of it, in which a fleet can be changed.
author:
  - edgeops contributors (@edgeops)
options:
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
"""

EXAMPLES = r"""
- name: See whom each server follows
  edgeops.redis_modules.redis_topology_info:
    login_password: "{{ vaulted_password }}"
  register: topology
"""

RETURN = r"""
server:
  description: What the server tells.
  returned: always
  type: dict
  contains:
    running:
      description: Whether it answers; where not, only its error, addresses, port and primary follow.
      type: bool
    error:
      description: Why it does not.
      type: str
    addresses:
      description: The addresses of the host, the one that it is reached from elsewhere by first.
      type: list
      elements: str
      sample: [192.0.2.11]
    port:
      description: Its TCP port, that of TLS where it has no other.
      type: int
      sample: 6379
    version:
      description: Its version.
      type: str
      sample: 7.0.15
    primary:
      description: Whom it follows, as C(HOST PORT); empty for a primary, and in a cluster.
      type: str
    link_up:
      description: Whether the link to its primary is up; true for a primary.
      type: bool
    syncing:
      description: Whether it takes over its primary's data just now.
      type: bool
    priority:
      description: Its replica-priority.
      type: int
      sample: 100
    offset:
      description: How far it is in the stream of replication, in bytes.
      type: int
      sample: 48213
    replicas:
      description: Who follows it, each with C(ip), C(port), C(state), C(offset) and C(lag), as INFO tells it.
      type: list
      elements: dict
    sentinels:
      description: How many Sentinels watch it.
      type: int
      sample: 3
    cluster:
      description: Whether it is a node of a cluster.
      type: bool
    cluster_state:
      description: The cluster's state as this node sees it; empty outside of one.
      type: str
      sample: ok
    node_id:
      description: Its id in the cluster; empty outside of one.
      type: str
    nodes:
      description: The answer of C(CLUSTER NODES); empty outside of one.
      type: str
"""

import re
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _host, _topology

HELLO_CHANNEL = "__sentinel__:hello"
"""Each Sentinel subscribes to it at each server that it watches."""


def addresses(run: _host.Run) -> list[str]:
    """Return the addresses of this host but for its loopback and those of a link; by C(hostname -I) or its own name."""
    code, out, _err = run(["hostname", "-I"])
    found = out.split() if code == 0 else socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in found if not re.match(r"127\.|::1$|fe80:", address)]


def tell(client: _client.Client, where: list[str]) -> dict[str, Any]:
    """Return the C(server) of the result. Raises ServerError."""
    info = client.info()
    clustered = info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster"
    follows = info.get("role") == "slave"
    told: dict[str, Any] = {
        "running": True,
        "error": "",
        "addresses": where,
        "port": int(info.get("tcp_port") or 0),
        "version": info.get("redis_version", ""),
        "primary": f"{info.get('master_host')} {info.get('master_port')}" if follows and not clustered else "",
        "link_up": not follows or info.get("master_link_status") == "up",
        "syncing": info.get("master_sync_in_progress") == "1",
        "priority": int(info.get("slave_priority") or 100),
        "offset": int(info.get("slave_repl_offset") or info.get("master_repl_offset") or 0),
        "replicas": [] if clustered else _topology.parse_replicas(info),
        "sentinels": int(client.call("PUBSUB", "NUMSUB", HELLO_CHANNEL)[1]),
        "cluster": clustered,
        "cluster_state": "",
        "node_id": "",
        "nodes": "",
    }
    if clustered:
        state = _client.parse_info(_raw(client.call("CLUSTER", "INFO")))
        told.update(
            cluster_state=state.get("cluster_state", ""),
            node_id=str(_client.text(client.call("CLUSTER", "MYID"))),
            nodes=str(_client.text(client.call("CLUSTER", "NODES"))),
        )
    return told


def stopped(error: str, where: list[str], conf_path: str) -> dict[str, Any]:
    """Return what redis.conf tells of a server that does not answer: whose copy it is when it runs again."""
    directives = _conf.directives_of(conf_path)
    port = _conf.value(directives, "port", "6379")
    return {
        "running": False,
        "error": error,
        "addresses": where,
        "port": int(port if port != "0" else _conf.value(directives, "tls-port", "0")),
        "primary": _conf.value(directives, "replicaof", "") or _conf.value(directives, "slaveof", ""),
    }


def _raw(reply: Any) -> bytes:
    return reply if isinstance(reply, bytes) else str(reply).encode()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"conf_path": {"type": "path", "default": "/etc/redis/redis.conf"}, **_client.LOGIN_ARGUMENTS},
        supports_check_mode=True,
    )
    where, conf_path = addresses(module.run_command), module.params["conf_path"]
    if _client.REDIS_IMPORT_ERROR:
        # As on a host that has no Redis yet.
        module.exit_json(changed=False, server=stopped(missing_required_lib("redis"), where, conf_path))
    try:
        client = _client.connect(module.params)
        try:
            server = tell(client, where)
        finally:
            client.close()
    except _client.ServerError as error:
        server = stopped(str(error), where, conf_path)
    module.exit_json(changed=False, server=server)


if __name__ == "__main__":
    main()
