# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_module_artifact: find the sources, and send them only where a host needs them."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _declaration, _host

MODULE = "edgeops.redis_modules.redis_module_artifact"


def source_faults(entry: Mapping[str, Any], folder: str, files: list[str]) -> list[str]:
    """Return what an entry names and its source folder does not have."""
    if entry.get("make_target"):
        has_makefile = any(name in files for name in ("GNUmakefile", "makefile", "Makefile"))
        return [] if has_makefile else [f"make_target needs a Makefile in {folder}"]
    sources = entry.get("sources") or _build.default_sources(files)
    if not sources:
        return [f"there are no C sources in {folder}; name them in sources"]
    missing = [source for source in sources if os.path.normpath(source) not in files]
    faults = [f"source {source} is not in {folder}" for source in missing]
    for include in entry.get("include_dirs") or []:
        if not os.path.isdir(os.path.join(folder, include)):
            faults.append(f"include_dirs: there is no folder {include} in {folder}")
    return faults


class ActionModule(ActionBase):
    """Runs the module once where the host has the artifact, twice where something has to be sent."""

    TRANSFERS_FILES = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        entry = {key: value for key, value in args.items() if key in _declaration.MODULE_OPTIONS}
        label = f"module {entry.get('name')}"
        faults = _declaration.entry_faults(entry)
        if faults:
            raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
        if entry.get("src"):
            args["_source"] = self._sources(label, entry, task_vars)
            local = args["_source"].pop("folder")
        elif "://" in entry["artifact"]:
            local = ""
        else:
            local = self._artifact(label, entry, task_vars)
        if entry.get("sha256"):
            args["sha256"] = entry["sha256"].lower()
        answer = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        needs = answer.pop("needs", "")
        if needs:
            sent = self._send(needs, local, args)
            answer = self._execute_module(module_name=MODULE, module_args={**args, **sent}, task_vars=task_vars)
        result.update(answer)
        return result

    def _find(self, label: str, path: str, task_vars: Mapping[str, Any]) -> str:
        folders = [str(task_vars.get("inventory_dir") or ""), str(task_vars.get("playbook_dir") or "")]
        found = _build.locate(path, folders)
        if found is None:
            looked = "" if os.path.isabs(path) else f"; looked in {', '.join(_build.search(folders))}"
            raise AnsibleActionFail(f"{label}: there is no {path} on the controller{looked}")
        return found

    def _sources(self, label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return folder, files and digest of the sources, or fail with what is missing."""
        folder = self._find(label, entry["src"], task_vars)
        if not os.path.isdir(folder):
            raise AnsibleActionFail(f"{label}: src {folder} must be a folder; name the files in sources")
        files = _build.source_files(folder, entry.get("make_output") or "")
        faults = source_faults(entry, folder, files)
        if faults:
            raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
        return {"folder": folder, "files": files, "digest": _build.tree_digest(folder, files)}

    def _artifact(self, label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        """Return the path of the artifact on the controller, or fail where it is not the declared one."""
        path = self._find(label, entry["artifact"], task_vars)
        digest = _host.sha256_of(path)
        if digest != entry["sha256"].lower():
            raise AnsibleActionFail(
                f"{label}: {path} has the digest {digest}, declared is {entry['sha256'].lower()}; "
                "correct the one that is wrong"
            )
        return path

    def _send(self, needs: str, local: str, args: Mapping[str, Any]) -> dict[str, str]:
        """Send what the host asked for and return it as arguments of the module."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, needs)
        if needs == "artifact":
            self._transfer_file(local, remote)
            key = "_upload"
        else:
            with tempfile.TemporaryDirectory() as folder:
                archive = os.path.join(folder, "source.tar.gz")
                _build.pack(local, args["_source"]["files"], archive)
                self._transfer_file(archive, remote)
            key = "_archive"
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return {key: remote}
