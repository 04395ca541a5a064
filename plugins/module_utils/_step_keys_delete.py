# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the keys of data types that no module is going to read any more."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _data, _release


def back_up(module: AnsibleModule, client: _client.Client) -> str:
    """Write a backup that root alone can read; return its path. Raises DataError, ServerError and OSError."""
    folder = module.params["folder"]
    _release.make_folders(os.path.dirname(folder))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    size, free = _data.size(client.info()), _data.free_disk(folder)
    if size > free:
        raise _data.DataError(f"the backup may take {_data.mib(size)} in {folder}, free are {_data.mib(free)}")
    # Another instance of Redis on this host may be at the same.
    path = os.path.join(folder, time.strftime(f"%Y%m%dT%H%M%SZ-{os.getpid()}.rdb", time.gmtime()))
    unfinished = path + ".new"
    try:
        _data.fetch(module.run_command, client, module.params, unfinished)
        os.chmod(unfinished, 0o600)
        os.rename(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    return path


SPEC: dict[str, Any] = {
    "argument_spec": {
        "types": {"type": "list", "elements": "str", "required": True},
        "folder": {"type": "path", "default": "/var/lib/edgeops-redis-modules/backups"},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    if _client.REDIS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    core = sorted(set(module.params["types"]) & _data.CORE_TYPES)
    if core:
        module.fail_json(msg=f"{', '.join(core)}: a type of the server itself; only modules' types are deleted")
    try:
        config = _conf.renamed_command(_conf.read(module.params["conf_path"]), "CONFIG")
        client = _client.connect(module.params, config)
        keys = _data.module_keys(client, float("inf"))
        found: dict[str, Any] = {kind: keys.counts.get(kind, 0) for kind in module.params["types"]}
        if not any(found.values()):
            module.exit_json(changed=False, deleted=found)
        if module.check_mode:
            module.exit_json(changed=True, deleted=found)
        backup = back_up(module, client)
        deleted = _data.delete(client, module.params["types"])
    except (OSError, _conf.ConfError, _data.DataError, _client.ServerError) as error:
        module.fail_json(msg=f"{error}. Nothing was deleted that is not in a backup in {module.params['folder']}")
    module.exit_json(changed=True, backup=backup, deleted=deleted)
