# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whom the server of a host follows, who follows it, and which cluster it is a node of."""

from __future__ import annotations

import re
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _snapshot,
    _topology,
)


def addresses(run: _host.Run) -> list[str]:
    """Return the addresses of this host but for its loopback and those of a link; by C(hostname -I) or its own name."""
    code, out, _err = run(["hostname", "-I"])
    found = out.split() if code == 0 else socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in found if not re.match(r"127\.|::1$|fe80:", address)]


def tell(client: _client.Client, params: dict[str, Any], where: list[str]) -> dict[str, Any]:
    """Return the C(server) of the result. Raises ServerError."""
    info = client.info()
    running = [module.name for module in client.modules()]
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
        "lacks": [name for name in params["modules"] if name not in running],
        "leaves": [name for name in params["absent"] if name in running],
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


def ask(params: dict[str, Any], directives: list[_conf.Directive], where: list[str]) -> dict[str, Any]:
    """Ask the server, as declared, else as its redis.conf has it: this run may be the one that changes its port.

    Raises ServerError, that of the declared login.
    """
    errors = []
    for login in _snapshot.logins(params, directives):
        try:
            client = _client.connect(login)
            try:
                return tell(client, params, where)
            finally:
                client.close()
        except _client.ServerError as error:
            errors.append(error)
    raise errors[0]


def unanswered(error: str, directives: list[_conf.Directive], where: list[str]) -> dict[str, Any]:
    """Return what redis.conf tells of a server that does not answer: whose copy it is when it runs again."""
    return {
        "running": False,
        "error": error,
        "addresses": where,
        "port": next(iter(_conf.listening_ports(directives)), 0),
        "primary": _topology.declared_primary(directives),
    }


SPEC: dict[str, Any] = {
    "argument_spec": {
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "modules": {"type": "list", "elements": "str", "default": []},
        "absent": {"type": "list", "elements": "str", "default": []},
        "unit": {"type": "str", "default": "redis-server.service"},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    where, directives = addresses(module.run_command), _conf.directives_of(module.params["conf_path"])
    process = bool(_host.main_pid(_host.unit_state(module.run_command, module.params["unit"])))
    try:
        if _client.REDIS_IMPORT_ERROR:
            # As on a host that has no Redis yet.
            raise _client.ServerError(missing_required_lib("redis"))
        server = ask(module.params, directives, where)
    except _client.ServerError as error:
        server = unanswered(str(error), directives, where)
    server["process"] = process or server["running"]
    module.exit_json(changed=False, server=server)
