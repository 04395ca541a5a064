#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try a configuration and its modules in a throwaway server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_trial
short_description: Try a redis.conf and its modules in a throwaway server on the host itself
version_added: 0.1.0
description:
  - Starts the host's own redis-server binary in a transient unit with the user, the sandbox and the limits of the
    service, in an empty folder, on a unix socket only, with the given configuration and modules; looks at MODULE LIST;
    ends it. The live server and its data are not touched.
  - Fails, with that server's own log lines, where it does not start, or where a module does not show under its declared
    name, version and arguments.
  - Reads each artifact first without running it, so that a damaged file, or one for another machine, is named as such.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The text of the redis.conf to try. Never shown, as it may hold passwords.
    type: str
    required: true
  modules:
    description: The modules that O(conf) loads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST has to report it.
        type: str
        required: true
      path:
        description: The path that O(conf) names.
        type: path
        required: true
      artifact:
        description: The file to try in its place; O(modules[].path) itself where nothing is given.
        type: path
      args:
        description: The arguments that it has to receive.
        type: list
        elements: str
        default: []
      version:
        description: The version that it has to report.
        type: int
      config:
        description: Its own directives in O(conf), which need Redis 7.0 or later.
        type: dict
        default: {}
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  unit:
    description: The systemd unit whose sandbox the throwaway server gets.
    type: str
    default: redis-server.service
  dropin:
    description: The text of the drop-in that the unit is going to have, in place of the one it has.
    type: str
    default: ""
  user:
    description: The user that the service runs as.
    type: str
    default: redis
  minimum_version:
    description: The oldest Redis that is accepted.
    type: str
    default: "4.0"
extends_documentation_fragment:
  - edgeops.redis_modules.redis.info
requirements:
  - redis-py 3.5.3 or later and pyelftools on the host (packages C(python3-redis) and C(python3-pyelftools))
"""

EXAMPLES = r"""
- name: Try a built module before the live server meets it
  edgeops.redis_modules.redis_trial:
    conf: |
      maxmemory 100mb
      loadmodule /var/lib/redis/modules/sensorwindow.so retention-ms 3600000
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        artifact: /root/sensorwindow.so
        args: [retention-ms, "3600000"]
"""

RETURN = r"""
version:
  description: The version of the binary that judged.
  returned: when there is one
  type: str
  sample: 7.0.15
modules:
  description: What MODULE LIST of the throwaway server reported; the server's built-in modules too.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The module's name.
      type: str
    version:
      description: The module's version.
      type: int
skipped_reason:
  description: Why nothing could be tried, in check mode on a host that has no Redis yet.
  returned: when nothing was tried
  type: str
log:
  description: The throwaway server's last log lines.
  returned: failure
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _elf,
    _host,
    _sandbox,
    _trial,
    _unit,
)


def version_faults(version: str, minimum: str, modules: list[dict[str, Any]]) -> list[str]:
    """Return what this version of Redis is too old for."""
    have = _host.version_tuple(version)
    if have < _host.version_tuple(minimum):
        return [f"Redis {version} is older than {minimum}, the oldest that this collection knows"]
    return [
        f"module {m['name']}: config needs Redis 7.0 or later, this host has {version}; give it as args instead"
        for m in modules
        if m["config"] and have < (7,)
    ]


def dropin_faults(module: AnsibleModule) -> list[str]:
    """Return what systemd finds wrong with the drop-in that the unit is going to have."""
    unit, dropin = module.params["unit"], module.params["dropin"]
    fragment = _host.unit_state(module.run_command, unit).get("FragmentPath")
    if not dropin or not fragment:
        return []
    found = _unit.faults(module.run_command, unit, fragment, dropin)
    return [f"systemd does not accept the drop-in; correct redis_server_dropin_lines: {fault}" for fault in found]


def file_faults(modules: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the artifacts as files, without running them."""
    platform = _host.facts_of_platform()
    faults = []
    for entry in modules:
        if not os.path.isfile(entry["artifact"]):
            faults.append(f"module {entry['name']}: there is no file at {entry['artifact']}")
            continue
        inspection = _elf.inspect(entry["artifact"])
        for misfit in _elf.misfits(inspection, platform["architecture"], platform["libc"]):
            faults.append(f"module {entry['name']}: {misfit} ({entry['artifact']})")
    return faults


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "conf": {"type": "str", "required": True, "no_log": True},
            "modules": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "artifact": {"type": "path"},
                    "args": {"type": "list", "elements": "str", "default": []},
                    "version": {"type": "int"},
                    "config": {"type": "dict", "default": {}},
                },
            },
            "binary": {"type": "path", "default": "/usr/bin/redis-server"},
            "unit": {"type": "str", "default": "redis-server.service"},
            "dropin": {"type": "str", "default": ""},
            "user": {"type": "str", "default": "redis"},
            "minimum_version": {"type": "str", "default": "4.0"},
        },
        supports_check_mode=True,
    )
    params = module.params
    version = _host.server_version(module.run_command, params["binary"])
    if not version:
        if module.check_mode:
            module.exit_json(changed=False, skipped_reason=f"there is no {params['binary']} yet to try it with")
        module.fail_json(msg=f"there is no redis-server at {params['binary']}; install Redis first (role redis_server)")
    for library, missing in (("redis", _client.REDIS_IMPORT_ERROR), ("pyelftools", _elf.ELFTOOLS_IMPORT_ERROR)):
        if missing and module.check_mode:
            module.exit_json(
                changed=False, version=version, skipped_reason=f"the Python library {library} is not installed yet"
            )
        if missing:
            module.fail_json(msg=missing_required_lib(library), exception=missing)
    modules = [{**entry, "artifact": entry["artifact"] or entry["path"]} for entry in params["modules"]]
    unbuilt = [entry["name"] for entry in modules if not os.path.exists(entry["artifact"])]
    if unbuilt and module.check_mode:
        module.exit_json(changed=False, version=version, skipped_reason=f"{', '.join(unbuilt)} is not built yet")
    try:
        directives = _conf.parse(params["conf"])
    except _conf.ConfError as error:
        module.fail_json(msg=f"redis.conf: {error}", version=version)
    faults = version_faults(version, params["minimum_version"], modules)
    try:
        faults = faults or file_faults(modules) or dropin_faults(module)
        if faults:
            module.fail_json(msg="\n".join(faults), version=version)
        paths = {entry["path"]: entry["artifact"] for entry in modules}
        service = _trial.Service(params["unit"], params["dropin"], params["binary"], params["user"])
        trial = _trial.in_place_of(module.run_command, service, directives, paths)
    except (OSError, KeyError, _sandbox.SandboxError) as error:
        module.fail_json(msg=f"the trial could not be run: {error}", version=version)
    faults = _trial.faults(trial, modules)
    if faults:
        lines = [
            *faults,
            "the live server was not touched; the throwaway server's last lines:",
            *trial.log[-_trial.LOG_LINES :],
        ]
        module.fail_json(msg="\n".join(lines), version=version, log=trial.log[-_trial.LOG_LINES :])
    module.exit_json(
        changed=False, version=version, modules=[{"name": m.name, "version": m.version} for m in trial.modules]
    )


if __name__ == "__main__":
    main()
