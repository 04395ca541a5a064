# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place modules in the module folder of a host."""

from __future__ import annotations

import os
import re
from typing import Any, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _access, _host, _release, _selinux


class Placer:
    """Brings the module folder to what is wanted and says what it did; in check mode it only says."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.folder: str = module.params["folder"]
        self.done: list[str] = []
        self.before: list[str] = []
        self.after: list[str] = []
        try:
            self.uid, self.gid = _release.owner_ids(module.params["owner"], module.params["group"])
        except KeyError as error:
            if not module.check_mode:
                module.fail_json(
                    msg=f"{error}: this host has no such user or group; install Redis first (role redis_server)"
                )
            self.uid = self.gid = -1
        self.mode = self.checked_mode()

    def checked_mode(self) -> int:
        """Return the mode, or fail where a server could not load a file that has it, or others could write it."""
        text = self.module.params["mode"]
        mode = int(text, 8) if re.fullmatch("[0-7]{3,4}", text) else 0
        if mode & 0o500 != 0o500 or mode & 0o7022:
            self.module.fail_json(
                msg=f"mode {text} must let its owner read and execute, nobody but its owner write, and be no setuid; "
                'write it in quotes, as "0555", for YAML reads 0555 as another number'
            )
        return mode

    def note(self, what: str, before: str, after: str) -> None:
        """Remember one change, with its lines of the diff."""
        self.done.append(what)
        self.before.append(before)
        self.after.append(after)

    def ensure_folder(self) -> None:
        """Make the folder, root's own, or mend its owner and mode."""
        wanted = f"{self.folder} root:{self.module.params['group']} {_release.FOLDER_MODE:04o}\n"
        found = _access.look(self.folder)
        if found is None:
            self.note(f"made the folder {self.folder}", f"{self.folder} absent\n", wanted)
            if not self.module.check_mode:
                _release.make_folders(self.folder)
        elif found.kind != "folder":
            self.module.fail_json(msg=f"the module folder: {_access.differences(found)[0]}", placed=self.done)
        else:
            said = _access.differences(found)
            if not said and not _access.folder_differences(found, self.module.params["group"]):
                return
            have = ", ".join([f"{found.owner}:{found.group} {found.mode:04o}", *said])
            self.note(f"mended the folder {self.folder}, which was {have}", f"{self.folder} {have}\n", wanted)
        if not self.module.check_mode:
            _access.plain(self.folder)
            os.chown(self.folder, 0, self.gid)
            os.chmod(self.folder, _release.FOLDER_MODE)

    def label_folder(self) -> None:
        """Let SELinux, where it is on, have the folder's files run; new files get the type of their folder."""
        for command in _selinux.of_folder(self.module.run_command, self.folder, self.module.check_mode):
            self.note(f"told SELinux: {' '.join(command)}", "", " ".join(command) + "\n")
            if not self.module.check_mode:
                _selinux.tell(self.module.run_command, [command])

    def place(self, entry: dict[str, Any]) -> None:
        """Place one module."""
        path, artifact = entry["path"], entry["artifact"] or entry["path"]
        found = _host.file_state(path)
        if not os.path.isfile(artifact):
            if self.module.check_mode:
                self.note(
                    f"module {entry['name']}: would be placed at {path} once it is built",
                    line(path, found),
                    f"{path}\n",
                )
                return
            self.fail(entry, f"there is no file at {artifact}")
        digest = _host.sha256_of(artifact)
        if entry["sha256"] and digest != entry["sha256"]:
            self.fail(entry, f"{artifact} has the digest {digest}, wanted {entry['sha256']}")
        wanted = _host.FileState(
            path,
            self.module.params["owner"],
            self.module.params["group"],
            f"{self.mode:04o}",
            digest,
            os.path.getsize(artifact),
        )
        access = _access.look(path)
        said = _access.differences(access)
        if found == wanted and not said:
            return
        what = "placed" if found is None or found.sha256 != digest else "mended owner or mode of"
        self.note(
            "; ".join([f"module {entry['name']}: {what} {digest[: _release.SHORT]} at {path}", *said]),
            line(path, found, said),
            line(path, wanted),
        )
        if self.module.check_mode:
            return
        if access is not None and access.kind == "file":
            _access.plain(path)
        # A file with another name is left to that name.
        if found is not None and found.sha256 == digest and access is not None and access.names == 1:
            # The content stays as it is, so a running server keeps its mapped file and needs no restart.
            os.chown(path, self.uid, self.gid)
            os.chmod(path, self.mode)
            return
        if found is not None and found.sha256 != digest:
            _release.keep(self.folder, entry["name"], path)
        # A release that is gone back to stays as old as it is; what a rollout places is the newest.
        keep_time = _release.is_kept(self.folder, artifact)
        _release.replace(artifact, path, self.uid, self.gid, self.mode, keep_time)
        self.prune(entry, digest)

    def take_away(self, entry: dict[str, Any]) -> None:
        """Take one module's file away; it stays kept as a release."""
        found = _host.file_state(entry["path"])
        if found is None:
            return
        self.note(
            f"module {entry['name']}: took {entry['path']} away", line(entry["path"], found), line(entry["path"], None)
        )
        if not self.module.check_mode:
            _access.free(entry["path"])
            _release.keep(self.folder, entry["name"], entry["path"])
            os.unlink(entry["path"])
            _release.sync_folder(self.folder)
            self.prune(entry)

    def prune(self, entry: dict[str, Any], current: str = "") -> None:
        """Drop the releases beyond the number to keep; never the one with the digest I(current), which is in place."""
        for path in _release.surplus(self.folder, entry["name"], self.module.params["keep"], current):
            _access.free(path)
            os.unlink(path)

    def fail(self, entry: dict[str, Any], why: str) -> None:
        """End with a sentence that names the module."""
        self.module.fail_json(msg=f"module {entry['name']}: {why}", placed=self.done)

    def releases(self) -> dict[str, list[str]]:
        """Return the kept releases by module."""
        return {
            entry["name"]: _release.surplus(self.folder, entry["name"], 0) for entry in self.module.params["modules"]
        }


def line(path: str, state: _host.FileState | None, said: Sequence[str] = ()) -> str:
    """Return one line of a diff for a file."""
    if state is None:
        return f"{path} absent\n" if not said else f"{said[0]}\n"
    return ", ".join([f"{path} {state.owner}:{state.group} {state.mode} sha256:{state.sha256}", *said]) + "\n"


SPEC: dict[str, Any] = {
    "argument_spec": {
        "folder": {"type": "path", "default": "/var/lib/redis/modules"},
        "owner": {"type": "str", "default": "redis"},
        "group": {"type": "str", "default": "redis"},
        "mode": {"type": "str", "default": "0555"},
        "keep": {"type": "int", "default": 3},
        "modules": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "path": {"type": "path", "required": True},
                "artifact": {"type": "path"},
                "sha256": {"type": "str"},
            },
        },
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    for entry in module.params["modules"]:
        if os.path.dirname(os.path.normpath(entry["path"])) != os.path.normpath(module.params["folder"]):
            module.fail_json(
                msg=f"module {entry['name']}: {entry['path']} lies outside the module folder {module.params['folder']}"
            )
    placer = Placer(module)
    try:
        placer.ensure_folder()
        placer.label_folder()
        for entry in module.params["modules"]:
            if entry["state"] == "absent":
                placer.take_away(entry)
            else:
                placer.place(entry)
    except (OSError, _selinux.SelinuxError) as error:
        module.fail_json(msg=f"{error}; what was there before is still in place", placed=placer.done)
    module.exit_json(
        changed=bool(placer.done),
        placed=placer.done,
        releases=placer.releases(),
        diff={"before": "".join(placer.before), "after": "".join(placer.after)},
    )
