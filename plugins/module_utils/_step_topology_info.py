# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whom the server of a host follows, who follows it, and which cluster it is a node of."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _snapshot,
    _told,
    _topology,
)


def ask(params: dict[str, Any], directives: list[_conf.Directive], where: list[str]) -> dict[str, Any]:
    """Ask the server, as declared, else as its redis.conf has it: this run may be the one that changes its port.

    Raises ServerError, that of the declared login.
    """
    errors = []
    for login in _snapshot.logins(params, directives):
        try:
            client = _client.connect(login)
            try:
                info, running = client.info(), [module.name for module in client.modules()]
                return _told.tell(client, info, running, params["modules"], params["absent"], where)
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
    where, directives = _told.addresses(module.run_command), _conf.directives_of(module.params["conf_path"])
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
