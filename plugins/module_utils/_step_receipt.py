# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See in one round trip whether a host is as wanted, by the receipt that the last rollout left."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

from ansible.module_utils import distro
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.sys_info import get_distribution, get_distribution_version

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _host,
    _places,
    _plan,
    _receipt,
)

OF_THE_LOOK = (
    "unit",
    "conf_path",
    "binary",
    "folder",
    "owner",
    "group",
    "mode",
    "user",
    "data_folder",
    "modules",
)


def see(module: AnsibleModule, look: _receipt.Look, salt: str) -> tuple[_receipt.Seen | None, list[str]]:
    """Look once; return what was seen, if anything could be, and what is not as it should be in any case."""
    if _client.REDIS_IMPORT_ERROR:
        return None, ["redis-py is not there (package python3-redis)"]
    try:
        seen = _receipt.observe(module.run_command, module.params, look, salt)
    except (_client.ServerError, OSError) as error:
        return None, [str(error)]
    return seen, _receipt.of_modules(seen.verdicts)


def compared(module: AnsibleModule, path: str) -> dict[str, Any]:
    """Compare the host with its receipt; where it is not as wanted, tell what the roles have to know of it next."""
    result = _compared(module, path)
    return result if result["as_wanted"] else {**result, "ansible_facts": distribution()}


def distribution() -> dict[str, str]:
    """Return what the roles go by of Ansible's facts: to gather them would be one more round trip."""
    version = get_distribution_version() or ""
    facts = {
        "os_family": _host.os_family(distro.id(), distro.like()),
        "distribution": get_distribution() or "",
        "distribution_version": version,
        "distribution_major_version": version.split(".", maxsplit=1)[0],
        "architecture": os.uname().machine,
    }
    return {f"ansible_{name}": value for name, value in facts.items() if value}


def _compared(module: AnsibleModule, path: str) -> dict[str, Any]:
    if module.params["_unknown"]:
        return {"as_wanted": False, "differences": [module.params["_unknown"]], "reached": ""}
    if not module.params["believe"]:
        return {
            "as_wanted": False,
            "differences": ["no receipt is to be believed (redis_receipt_believe)"],
            "reached": "",
        }
    receipt = _receipt.load(path)
    if receipt is None:
        return {"as_wanted": False, "differences": ["no rollout has left a receipt here"], "reached": ""}
    reached = {"reached": _places.iso(receipt.reached)}
    different = _receipt.differences(receipt, module.params["_declared"], receipt.seen)
    different += _receipt.unfinished(receipt.look.unit)
    if different:
        # What is there is looked at more closely anyhow.
        return {"as_wanted": False, "differences": different, **reached}
    seen, different = see(module, receipt.look, receipt.salt)
    if seen:
        different += _receipt.differences(receipt, receipt.declared, seen.state)
    if different or not seen:
        return {"as_wanted": False, "differences": different, **reached}
    return {
        "as_wanted": True,
        "differences": [],
        "confirmation": _receipt.confirmation(receipt.look, seen),
        "firewall": _receipt.firewall(receipt.look, seen),
        "topology": seen.topology,
        **reached,
    }


def noted(module: AnsibleModule) -> dict[str, Any]:
    """Note a receipt of what is there. Raises OSError."""
    params = module.params
    # What a look takes that finds all as it was needs none of these.
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall, _release, _unit

    packages = ["systemd", *(name for name in dict.fromkeys(params["packages"]) if name != "systemd")]
    guarded = bool(params["firewall"])
    files = [params["conf_path"], params["binary"], _unit.KEEPER, *filter(None, params["files"])]
    files += [_firewall.RULES_PATH] if guarded else []
    look = _receipt.Look(
        **{key: params[key] for key in OF_THE_LOOK},
        packages=packages,
        files=files,
        units=[_firewall.UNIT, "nftables.service"] if guarded else [],
        exposure=_unit.exposure(module.run_command, params["unit"]),
        firewall=params["firewall"],
    )
    folder = _places.snapshot(params["unit"])
    if not module.check_mode:
        # Whatever comes of it, what a run that died has noted does not count.
        _release.remove(_places.noted(folder))
    salt, now = secrets.token_hex(16), int(time.time())
    seen, different = see(module, look, salt)
    if not os.path.isdir(folder) and not module.check_mode:
        different.append("no snapshot is open in which it could wait")
    if different or not seen:
        return {"noted": False, "differences": different, "reached": ""}
    if not module.check_mode:
        receipt = _receipt.Receipt(params["_declared"], now, look, salt, seen.state)
        _receipt.note(_places.noted(folder), receipt)
    return {"noted": True, "differences": [], "reached": _places.iso(now)}


SPEC: dict[str, Any] = {
    "argument_spec": {
        "state": {"type": "str", "choices": ["compared", "noted"], "default": "compared"},
        "unit": {"type": "str", "default": "redis-server.service"},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "binary": {"type": "path", "default": "/usr/bin/redis-server"},
        "folder": {"type": "path", "default": "/var/lib/redis/modules"},
        "owner": {"type": "str", "default": "redis"},
        "group": {"type": "str", "default": "redis"},
        "mode": {"type": "str", "default": "0555"},
        "user": {"type": "str", "default": "redis"},
        "data_folder": {"type": "path", "default": "/var/lib/redis"},
        "modules": {"type": "list", "elements": "dict", "default": [], "options": _plan.WANTED_OPTIONS},
        "packages": {"type": "list", "elements": "str", "default": []},
        "files": {"type": "list", "elements": "str", "default": []},
        "firewall": {"type": "dict", "default": {}},
        "believe": {"type": "bool", "default": True},
        **_client.LOGIN_ARGUMENTS,
        # Given by the action: the digest of all that is declared, or why it can't be told.
        "_declared": {"type": "str", "no_log": True},
        "_unknown": {"type": "str"},
    },
    "required_one_of": [("_declared", "_unknown")],
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    if module.params["state"] == "compared":
        module.exit_json(changed=False, **compared(module, _places.receipt(module.params["unit"])))
    try:
        result = noted(module)
    except OSError as error:
        # The host is as wanted all the same; it is only looked at closely the next time.
        result = {"noted": False, "differences": [f"it could not be written: {error}"], "reached": ""}
    module.exit_json(changed=False, **result)
