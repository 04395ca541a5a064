# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirm that Redis on a host runs the declared modules."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host, _observe, _plan, _unit


def wanted_modules(params: dict[str, Any]) -> list[_plan.Wanted]:
    """Return what is declared, from the module's arguments."""
    return [
        _plan.Wanted(
            name=entry["name"],
            state=entry["state"],
            path=entry["path"],
            args=entry["args"],
            version=entry["version"],
            sha256=entry["sha256"] or "",
            owner=params["owner"] or "",
            group=params["group"] or "",
            mode=params["mode"] or "",
        )
        for entry in params["modules"]
    ]


SPEC: dict[str, Any] = {
    "argument_spec": {
        "modules": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": _plan.WANTED_OPTIONS,
        },
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "mode": {"type": "str"},
        "folder": {"type": "path"},
        "user": {"type": "str", "default": "redis"},
        "data_folder": {"type": "path", "default": "/var/lib/redis"},
        "exclusive": {"type": "bool", "default": True},
        "fail": {"type": "bool", "default": True},
        "unit": {"type": "str", "default": "redis-server.service"},
        "logfile": {"type": "path", "default": "/var/log/redis/redis-server.log"},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    if _client.REDIS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    params = module.params
    wanted = wanted_modules(params)
    folder = _observe.Folder(params["folder"] or "", params["group"] or "", params["user"], params["data_folder"])
    exposure = _unit.exposure(module.run_command, params["unit"])
    result: dict[str, Any] = {"changed": False, "error": "", "server_version": "", "exposure": exposure}
    try:
        client = _client.connect(module.params)
        seen = _observe.running(client, module.params)
        client.close()
    except _client.ServerError as error:
        verdicts = _observe.verdicts_without_server(wanted, folder)
        result.update(
            error=str(error),
            log=_host.log_excerpt(module.run_command, module.params["unit"], module.params["logfile"]),
        )
    else:
        verdicts = _observe.verdicts(seen, wanted, folder)
        result["server_version"] = seen.info.get("redis_version", "")
        if module.params["exclusive"]:
            verdicts += _observe.strangers(seen, wanted)
    bad = [v for v in verdicts if v.verdict not in _plan.GOOD]
    result.update(confirmed=not bad and not result["error"], verdicts=[v.as_dict() for v in verdicts])
    if module.params["fail"] and not result["confirmed"]:
        lines = [f"module {v.name}: {v.verdict}: {'; '.join(v.differences)}" for v in bad]
        if result["error"]:
            lines.insert(0, f"the server does not answer: {result['error']}")
            lines += ["its last log lines:", *result["log"]]
        module.fail_json(msg="\n".join(lines), **result)
    module.exit_json(**result)
