# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return what Redis on a host runs."""

from __future__ import annotations

import os
import re
from typing import Any, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _observe,
    _plan,
    _release,
    _topology,
)


def describe(seen: _observe.Running, paths: dict[str, str]) -> list[dict[str, Any]]:
    """Return the C(modules) of the result."""
    where = {m.name: m.path or str(paths.get(m.name, "")) for m in seen.modules}
    images = _host.live_images(seen.pid, [path for path in where.values() if path]) if seen.pid else {}
    described = []
    for module in seen.modules:
        path = where[module.name]
        on_disk = _host.file_state(path) if path else None
        live = images.get(path)
        described.append(
            {
                "name": module.name,
                "version": module.version,
                "built_in": module.built_in,
                "path": path,
                "args": None if module.args is None else list(module.args),
                "sha256": on_disk.sha256 if on_disk else "",
                "live_sha256": live.sha256 if live else "",
                "owner": on_disk.owner if on_disk else "",
                "group": on_disk.group if on_disk else "",
                "mode": on_disk.mode if on_disk else "",
                "restart_pending": live is not None and (on_disk is None or _plan.is_stale(live, on_disk)),
            }
        )
    return described


def module_files(pid: int, directives: Sequence[_conf.Directive]) -> list[str]:
    """Return the files of the modules that run or would run after the next start, without asking the server."""
    found = _host.modules_of_process(pid) if pid else []
    return sorted({*found, *(d.args[0] for d in directives if d.name == "loadmodule" and d.args)})


def releases(folder: str, paths: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the C(releases) of the result. Raises OSError."""
    kept_in = os.path.join(folder, _release.RELEASES)
    names = {*paths, *(os.listdir(kept_in) if os.path.isdir(kept_in) else [])}
    return {
        name: [
            release.as_dict()
            for release in _release.found(folder, name, str(paths.get(name) or os.path.join(folder, name + ".so")))
        ]
        for name in sorted(names)
    }


def acl_users(client: _client.Client) -> list[str] | None:
    """Return the names of the server's users; None where it has none (before 6.0), or does not tell this one."""
    try:
        return sorted(str(_client.text(name)) for name in client.call("ACL", "USERS"))
    except _client.ServerError:
        return None


def databases(info: dict[str, str]) -> list[str]:
    """Return what INFO says of each database that holds keys."""
    return [value for name, value in info.items() if re.fullmatch(r"db\d+", name)]


def number(info: dict[str, str], field: str) -> int:
    """Return a field of INFO as a number; 0 where it is not there."""
    return int(info.get(field) or 0)


SPEC: dict[str, Any] = {
    "argument_spec": {
        "binary": {"type": "path", "default": "/usr/bin/redis-server"},
        "unit": {"type": "str", "default": "redis-server.service"},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "folder": {"type": "path"},
        "paths": {"type": "dict", "default": {}},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    host = {**_host.facts_of_platform(), "systemd": _host.systemd_version(module.run_command)}
    unit = _host.unit_state(module.run_command, module.params["unit"])
    directives = _conf.directives_of(module.params["conf_path"])
    server: dict[str, Any] = {
        "installed_version": _host.server_version(module.run_command, module.params["binary"]),
        "service": "not-found" if unit.get("LoadState") == "not-found" else unit.get("ActiveState", "unknown"),
        "stopped": unit.get("ActiveState") in ("failed", "inactive") and unit.get("LoadState") != "not-found",
        "running": False,
        "error": "",
        "login_refused": False,
        "replicaof": _topology.declared_primary(directives),
        "configured": _conf.is_ours(module.params["conf_path"]),
        "users": None,
        "files": module_files(_host.main_pid(unit), directives),
    }
    modules: list[dict[str, Any]] = []
    if _client.REDIS_IMPORT_ERROR:
        if server["installed_version"]:
            module.warn(missing_required_lib("redis"))
        server["error"] = "redis-py is not installed on this host (package python3-redis)"
    else:
        try:
            client = _client.connect(module.params)
            seen = _observe.running(client, module.params)
            users = acl_users(client)
            client.close()
        except _client.ServerError as error:
            server["error"] = str(error)
            server["login_refused"] = not isinstance(error, _client.NotReachedError)
        else:
            server.update(
                running=True,
                users=users,
                key_count=sum(int(match) for match in re.findall(r"keys=(\d+)", " ".join(databases(seen.info)))),
                replicaof=_topology.followed(seen.info),
                version=seen.info.get("redis_version", ""),
                mode=seen.info.get("redis_mode", ""),
                role=seen.info.get("role", ""),
                pid=seen.pid,
                uptime_seconds=number(seen.info, "uptime_in_seconds"),
                used_memory_bytes=number(seen.info, "used_memory"),
                rss_bytes=number(seen.info, "used_memory_rss"),
            )
            modules = describe(seen, module.params["paths"])
    try:
        kept = releases(module.params["folder"], module.params["paths"]) if module.params["folder"] else {}
    except OSError as error:
        module.fail_json(msg=f"the releases in {module.params['folder']} can't be read: {error}")
    module.exit_json(changed=False, host=host, server=server, modules=modules, releases=kept)
