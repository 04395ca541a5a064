# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep all users of a server from the commands of modules that are about to leave."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _acl, _client, _conf, _host

FILTERBY_SINCE = (7, 0)
"""COMMAND LIST FILTERBY MODULE."""


def commands_of(client: _client.Client, modules: list[str]) -> list[str]:
    """Return the commands of these modules, sorted; none where the server does not tell. Raises ServerError."""
    if _host.version_tuple(client.info().get("redis_version", "0")) < FILTERBY_SINCE:
        return []
    replies = [client.call("COMMAND", "LIST", "FILTERBY", "MODULE", name) for name in modules]
    return sorted({str(_client.text(name)).lower() for reply in replies for name in reply})


SPEC: dict[str, Any] = {
    "argument_spec": {
        "modules": {"type": "list", "elements": "str", "required": True},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    if _client.REDIS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    acl = _conf.renamed_command(_conf.directives_of(module.params["conf_path"]), "ACL")
    try:
        client = _client.connect(module.params)
        try:
            commands = commands_of(client, module.params["modules"])
            changes = _acl.withholding(client.users(acl), commands) if commands else []
            for words in [] if module.check_mode else changes:
                client.call(acl, *words)
        finally:
            client.close()
    except _client.ServerError as error:
        module.fail_json(msg=f"the modules' commands can't be withheld: {_client.without_command(error)}")
    module.exit_json(changed=bool(changes), commands=commands, users=[words[1] for words in changes])
