# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one rollout at a time change a host."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _lock, _places


def told(found: _lock.Holder | None) -> dict[str, Any]:
    """Return the holder for the result."""
    return found.as_dict() if found else {}


def hold(module: AnsibleModule) -> dict[str, Any]:
    """Hold the lock. Raises LockError."""
    params = module.params
    taken = _lock.hold(params["path"], params["owner"], params["gone"], params["take_over"], module.check_mode)
    if taken.found and taken.taken_over and taken.found.run not in params["gone"]:
        whose = taken.found.who or "nobody knows whom"
        module.warn(f"the lock of {whose}, held since {_places.iso(taken.found.since)}, was taken over, as you asked")
    return {"holder": told(taken.found), "taken_over": taken.taken_over}


def release(module: AnsibleModule) -> dict[str, Any]:
    """Give the lock back. Raises LockError."""
    path = module.params["path"]
    found = _lock.read(path) if module.check_mode else _lock.release(path, module.params["owner"]["run"])
    return {"holder": told(found), "taken_over": False}


SPEC: dict[str, Any] = {
    "argument_spec": {
        "state": {"type": "str", "choices": ["read", "held", "released"], "required": True},
        "owner": {
            "type": "dict",
            "options": {
                "run": {"type": "str", "required": True},
                "who": {"type": "str", "required": True},
                "controller": {"type": "str", "required": True},
                "pid": {"type": "int", "required": True},
                "started": {"type": "str", "default": ""},
            },
        },
        "gone": {"type": "list", "elements": "str", "default": []},
        "take_over": {"type": "bool", "default": False},
        "path": {"type": "path", "default": _lock.PATH},
    },
    "required_if": [("state", "held", ["owner"]), ("state", "released", ["owner"])],
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    try:
        if module.params["state"] == "held":
            result = hold(module)
        elif module.params["state"] == "released":
            result = release(module)
        else:
            result = {"holder": told(_lock.read(module.params["path"])), "taken_over": False}
    except _lock.LockError as error:
        module.fail_json(msg=str(error), holder=told(error.found))
    module.exit_json(changed=False, **result)
