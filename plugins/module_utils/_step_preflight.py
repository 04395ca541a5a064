# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look whether anything stands against a rollout on a host, before it is touched."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _preflight, _survey

SPEC: dict[str, Any] = {
    "argument_spec": {
        "folder": {"type": "path", "default": "/var/lib/redis/modules"},
        "data": {"type": "path", "default": "/var/lib/redis"},
        "cache": {"type": "path", "default": "/var/cache/edgeops-redis-modules"},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "binary": {"type": "path", "default": "/usr/bin/redis-server"},
        "unit": {"type": "str", "default": "redis-server.service"},
        "io_threads": {"type": "str", "default": "auto"},
        "packages": {"type": "list", "elements": "str", "default": []},
        "header": {"type": "str", "default": ""},
        "header_sha256": {"type": "str", "default": ""},
        "ignore": {"type": "list", "elements": "str", "default": []},
        "fail_as": {"type": "str"},
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    params = {**module.params, "packages": tuple(module.params["packages"])}
    ignored, host = params.pop("ignore"), params.pop("fail_as")
    unknown = [subject for subject in ignored if subject not in _preflight.SUBJECTS]
    if unknown:
        module.fail_json(msg=f"ignore: {', '.join(unknown)} is none of {', '.join(_preflight.SUBJECTS)}")
    wanted = _survey.Wanted(**params)
    facts = _survey.look(module.run_command, wanted)
    findings = _preflight.knowingly(_preflight.judge(facts, wanted), ignored)
    result: dict[str, Any] = {
        "changed": False,
        "findings": [finding._asdict() for finding in findings],
        "faults": _preflight.lines(findings),
        "installed": [name for name in wanted.packages if name not in facts.missing],
        "runs": bool(_host.main_pid(facts.unit)),
    }
    if host and result["faults"]:
        module.fail_json(msg=_preflight.refusal(host, result["faults"]), **result)
    module.exit_json(**result)
