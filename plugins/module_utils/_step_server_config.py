# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write redis.conf and the systemd drop-in of a server."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import stat
from typing import Any, Sequence

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


SPEC: dict[str, Any] = {
    "argument_spec": {
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
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
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
    # What systemd has accepted before, it accepts with another digest behind it.
    if unit.get("FragmentPath") and not _unit.has(before[dropin_path] or "", params["dropin"]):
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
