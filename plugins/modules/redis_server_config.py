#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write redis.conf and the systemd drop-in of a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_server_config
short_description: Write redis.conf and the systemd drop-in of a server, whole and checked
version_added: 0.1.0
description:
  - Replaces each file by rename where what it says differs from what is wanted; comments and quoting alone are no
    difference. The drop-in is checked by C(systemd-analyze verify) first. For redis.conf, run
    M(edgeops.redis_modules.redis_trial) first.
  - A redis.conf that the server has rewritten (C(CONFIG REWRITE)) stays as it is where throwaway servers come out the
    same with either. Whom the server follows by now is not compared.
  - Where SELinux is on, lets Redis listen on the ports that O(conf) names, by C(semanage port).
  - A redis.conf that was not written by this collection is kept beside it once, as C(redis.conf.before-edgeops).
  - Does not restart or reload anything; M(edgeops.redis_modules.redis_service) does.
  - Makes the folder of the data (C(dir)) for O(user) where there is none.
  - Fails, with nothing written, where the server would start without its data, as its RDB lies elsewhere, and where it
    could not save, as O(user) may not write to the folder of the data.
  - CONFIG REWRITE drops quotes and order of C(loadmodule) lines. Where that matters, a small script is put beside, and
    each start lets it put them back from comments in redis.conf.
  - Secrets are replaced in the diff.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The whole text of redis.conf. Never shown, as it may hold passwords.
    type: str
    required: true
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
  owner:
    description: Who owns redis.conf. Redis has to write it for CONFIG REWRITE.
    type: str
    default: redis
  group:
    description: The group of redis.conf.
    type: str
    default: redis
  mode:
    description: The mode of redis.conf.
    type: str
    default: "0640"
  dropin:
    description:
      - The text of the drop-in. A line is added by which each start leaves a digest in C(/run), over all that only a
        start can change. So it can be seen what a running server was started with.
    type: str
    required: true
  dropin_path:
    description: Where the drop-in lies.
    type: path
    default: /etc/systemd/system/redis-server.service.d/50-edgeops-redis-modules.conf
  unit:
    description: The systemd unit.
    type: str
    default: redis-server.service
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  user:
    description: The user that the service runs as.
    type: str
    default: redis
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Write a configuration that was tried before
  edgeops.redis_modules.redis_server_config:
    conf: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    dropin: |
      [Service]
      MemoryMax=2G
"""

RETURN = r"""
made:
  description: The folder of the data where it was made, or would be in check mode; empty where it is there.
  returned: always
  type: str
selinux:
  description: What SELinux was told, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [semanage port -a -t redis_port_t -p tcp 7000]
written:
  description: The files that were written, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/redis/redis.conf]
backup:
  description: Where the redis.conf of before is kept.
  returned: when one was kept in this run
  type: str
"""

import contextlib
import io
import os
import pwd
import stat
from typing import Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _plan,
    _release,
    _sandbox,
    _selinux,
    _trial,
    _unit,
)

BACKUP_SUFFIX = ".before-edgeops"


def read(path: str) -> str | None:
    """Return the text of a file; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str, uid: int, gid: int, mode: int) -> None:
    """Write a file whole and by rename. Raises OSError."""
    _release.make_folders(os.path.dirname(path))
    _release.write(io.BytesIO(text.encode("utf-8", "surrogateescape")), path, uid, gid, mode)


def same_conf(module: AnsibleModule, found: str | None, wanted: Sequence[_conf.Directive]) -> bool:
    """Whether two redis.conf come to the same: as text, or as the server itself reads them after CONFIG REWRITE."""
    if found is None:
        return False
    try:
        # Lines that CONFIG REWRITE has spoiled may be no lines at all.
        with contextlib.suppress(_conf.ConfError):
            if _conf.parse(found) == wanted:
                return True
        if _conf.MARK not in found or not os.path.exists(module.params["binary"]):
            return False
        return same_to_server(module, _conf.parse(_unit.kept(module.run_command, found)), wanted)
    except (_conf.ConfError, OSError, KeyError, _sandbox.SandboxError):
        return False


def same_to_server(module: AnsibleModule, found: Sequence[_conf.Directive], wanted: Sequence[_conf.Directive]) -> bool:
    """Whether a throwaway server comes out the same with either redis.conf. Raises OSError, KeyError, SandboxError."""
    if _client.REDIS_IMPORT_ERROR or not _plan.same_unasked(found, wanted):
        return False
    service = _trial.Service(*(module.params[key] for key in _trial.Service._fields))
    acl = _conf.renamed_command(wanted, "ACL")

    def users(client: _client.Client, _loaded: Sequence[_client.LoadedModule]) -> dict[str, list[str]]:
        """Return the users, where it has any: before 6.0 it has none."""
        try:
            return {name: sorted(words) for name, words in client.users(acl).items() if name != _conf.TRIAL_USER}
        except _client.NotReachedError:
            raise
        except _client.ServerError:
            return {}

    before, after = (
        _trial.in_place_of(module.run_command, service, directives, {}, users) for directives in (found, wanted)
    )
    return (
        not before.error
        and not after.error
        and _plan.same_settings(before.settings, after.settings)
        and before.found == after.found
    )


def moved_data(found: str | None, wanted: Sequence[_conf.Directive]) -> str:
    """Return why the server would start without its data; empty where it would not, or nothing can be said."""
    try:
        return _plan.moved_data(_conf.parse(found), wanted, os.path.exists) if found else ""
    except _conf.ConfError:
        return ""


def saves(directives: Sequence[_conf.Directive]) -> bool:
    """Whether a server with these directives writes its data to its folder."""
    off = any(d.name == "save" and d.args == ("",) for d in directives)
    return not off or _conf.value(directives, "appendonly", "no") == "yes"


def unwritable(folder: str, user: str, directives: Sequence[_conf.Directive]) -> str:
    """Return why the server could not save to its folder, where it is there; empty where it can, or an ACL decides."""
    if not saves(directives):
        return ""
    try:
        account, found = pwd.getpwnam(user), os.stat(folder)
    except (KeyError, OSError):
        return ""
    with contextlib.suppress(OSError, AttributeError):
        os.getxattr(folder, "system.posix_acl_access")
        return ""
    if found.st_uid == account.pw_uid:
        needed = 0o300
    elif found.st_gid in os.getgrouplist(user, account.pw_gid):
        needed = 0o030
    else:
        needed = 0o003
    if account.pw_uid == 0 or found.st_mode & needed == needed:
        return ""
    owner = f"{_host.owner_name(found.st_uid)}:{_host.group_name(found.st_gid)} {stat.S_IMODE(found.st_mode):04o}"
    return (
        f"{user} may not write to {folder} ({owner}), so the server could not save its data there; "
        f"chown {user} {folder}, or set redis_server_dir to a folder of its own"
    )


def make_data_folder(folder: str, uid: int, gid: int) -> None:
    """Make the folder of the data, for the service alone. Raises OSError."""
    _release.make_folders(os.path.dirname(folder))
    os.mkdir(folder, 0o700)
    os.chown(folder, uid, gid)
    os.chmod(folder, 0o750)  # noqa: S103
    _release.sync_folder(os.path.dirname(folder))


def right_access(path: str, owner: str, group: str, mode: int) -> bool:
    """Whether the file at I(path) has this owner, group and mode."""
    found = _host.file_state(path)
    return found is not None and (found.owner, found.group, found.mode) == (owner, group, f"{mode:04o}")


def differing(
    module: AnsibleModule, found: dict[str, str | None], dropin: str, directives: Sequence[_conf.Directive]
) -> list[str]:
    """Return the files that are not as wanted; I(found) are the texts that are there."""
    params = module.params
    conf_path, dropin_path, mode = params["conf_path"], params["dropin_path"], int(params["mode"], 8)
    written: list[str] = []
    if not same_conf(module, found[conf_path], directives) or not right_access(
        conf_path, params["owner"], params["group"], mode
    ):
        written.append(conf_path)
    if found[dropin_path] != dropin or not right_access(dropin_path, "root", "root", 0o644):
        written.append(dropin_path)
    if _conf.rewrite_spoils(directives) and not (
        found[_unit.KEEPER] == _unit.KEEPER_SCRIPT and right_access(_unit.KEEPER, "root", "root", 0o755)
    ):
        written.append(_unit.KEEPER)
    return written


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "conf": {"type": "str", "required": True, "no_log": True},
            "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
            "owner": {"type": "str", "default": "redis"},
            "group": {"type": "str", "default": "redis"},
            "mode": {"type": "str", "default": "0640"},
            "dropin": {"type": "str", "required": True},
            "dropin_path": {
                "type": "path",
                "default": "/etc/systemd/system/redis-server.service.d/50-edgeops-redis-modules.conf",
            },
            "unit": {"type": "str", "default": "redis-server.service"},
            "binary": {"type": "path", "default": "/usr/bin/redis-server"},
            "user": {"type": "str", "default": "redis"},
        },
        supports_check_mode=True,
    )
    params = module.params
    conf_path, dropin_path, mode = params["conf_path"], params["dropin_path"], int(params["mode"], 8)
    try:
        directives = _conf.parse(params["conf"])
        dropin = _unit.completed(params["dropin"], params["unit"], directives, conf_path)
        told = _selinux.of_ports(module.run_command, _conf.listening_ports(directives), module.check_mode)
    except (_conf.ConfError, _selinux.SelinuxError) as error:
        module.fail_json(msg=f"redis.conf: {error}; {conf_path} is as before")
    before = {path: read(path) for path in (conf_path, dropin_path, _unit.KEEPER)}
    unit = _host.unit_state(module.run_command, params["unit"])
    if unit.get("LoadState") == "not-found" and not module.check_mode:
        module.fail_json(msg=f"there is no unit {params['unit']} on this host; install Redis first (role redis_server)")
    if unit.get("FragmentPath") and before[dropin_path] != dropin:
        faults = _unit.faults(module.run_command, params["unit"], unit["FragmentPath"], dropin)
        if faults:
            module.fail_json(msg="systemd does not accept the drop-in, it is as before:\n" + "\n".join(faults))

    data = _conf.value(directives, "dir", "")
    made = data if data.startswith("/") and not os.path.isdir(data) else ""
    fault = moved_data(before[conf_path], directives) or unwritable(data, params["user"], directives)
    if fault:
        module.fail_json(msg=f"{fault}. {conf_path} is as before")
    written = differing(module, before, dropin, directives)
    shown = {conf_path: _conf.masked(params["conf"]), dropin_path: dropin, _unit.KEEPER: _unit.KEEPER_SCRIPT}
    result = {
        "changed": bool(written or told or made),
        "made": made,
        "selinux": [" ".join(command) for command in told],
        "written": written,
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": _conf.masked(before[path] or "") if path == conf_path else before[path] or "",
                "after": shown[path],
            }
            for path in written
        ],
    }
    if result["changed"] and not module.check_mode:
        try:
            _selinux.tell(module.run_command, told)
            uid, gid = _release.owner_ids(params["owner"], params["group"])
            if made:
                make_data_folder(made, *_release.owner_ids(params["user"], params["group"]))
            found = before[conf_path]
            backup = conf_path + BACKUP_SUFFIX
            if conf_path in written and found is not None and _conf.MARK not in found and not os.path.exists(backup):
                write(backup, found, 0, 0, 0o600)
                result["backup"] = backup
            if _unit.KEEPER in written:
                write(_unit.KEEPER, _unit.KEEPER_SCRIPT, 0, 0, 0o755)
            # The drop-in without its digest first: a start at any moment in between finds the module folder
            # executable, and none can carry the new digest while the old redis.conf is read.
            if conf_path in written:
                write(dropin_path, params["dropin"], 0, 0, 0o644)
                write(conf_path, params["conf"], uid, gid, mode)
            write(dropin_path, dropin, 0, 0, 0o644)
        except (OSError, KeyError, _selinux.SelinuxError) as error:
            module.fail_json(msg=f"could not write the configuration: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
