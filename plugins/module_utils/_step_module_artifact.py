# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a host has of its modules' artifacts, and what it could build them with."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _workshop

LOOK_ARGUMENTS: dict[str, Any] = {
    "binary": {"type": "path", "default": "/usr/bin/redis-server"},
    "cache": {"type": "path", "default": "/var/cache/edgeops-redis-modules"},
    "cc": {"type": "str", "default": "gcc"},
    # Given by the controller's half: what to look for.
    "_sources": {"type": "dict"},
    "_headers": {"type": "list", "elements": "str"},
}

SPEC: dict[str, Any] = {
    "argument_spec": {"step": {"type": "str", "choices": ["look"], "required": True}, **LOOK_ARGUMENTS},
    "supports_check_mode": True,
}


def look(module: AnsibleModule) -> dict[str, Any]:
    """Tell what this host has."""
    params = module.params
    workshop = _workshop.Workshop(module.run_command, params["cache"], params["cc"])
    wanted = _workshop.Wanted(params["_sources"] or {}, params["_headers"] or [])
    return {"changed": False, **workshop.look(wanted, params["binary"])}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    module.exit_json(**look(module))
