# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_module_artifact: find the sources, keep what was built, send only what is needed."""

from __future__ import annotations

import base64
import os
import tempfile
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _builders,
    _cache,
    _elf,
    _workshop,
)
from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _looking

MODULE = "edgeops.redis_modules.redis_module_artifact"

CONTROLLERS = ("controller_cache", "of", "on_controller", "share", "seen", "made", "header_content")
"""What is for the action alone; a host is not told of it."""


class ActionModule(ActionBase):
    """One module call for all modules of a host, or none."""

    # A folder on the host costs a round trip; where something large is sent, it is made then.
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        own = {key: args.pop(key, None) for key in CONTROLLERS}
        own["cache"] = _looking.cache_of(own)
        own["on_controller"] = boolean(own["on_controller"] or False, strict=False)
        step = getattr(self, f"_step_{args.get('step')}", None)
        if step is None:
            raise AnsibleActionFail("step must be look, build or lay")
        result.update(step(args, own, task_vars))
        return result

    # ------------------------------------------------------------ look

    def _step_look(self, args: dict[str, Any], own: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what a host has and what it wants; of a builder, what it has of what the hosts want."""
        if own["of"] is not None:
            sources, headers = _builders.sources_of(own["of"]), _builders.headers_of(own["of"])
            # A builder that can't be reached or asked may not be needed; the plan tells. Only here is that no failure.
            try:
                answer = self._ask({**args, "_sources": sources, "_headers": headers}, task_vars)
            except AnsibleConnectionFailure as error:
                return {"changed": False, "msg": str(error)}
            return {"changed": False, "msg": answer.get("msg", "")} if answer.get("failed") else answer
        asked = {**args, "controller_cache": own["cache"], "on_controller": own["on_controller"]}
        look = _looking.asked(asked, task_vars)
        answer = self._ask(look.args, task_vars)
        return answer if answer.get("failed") or answer.get("unreachable") else _looking.told(look, asked, answer)

    # ------------------------------------------------------------ build

    def _step_build(self, args: dict[str, Any], own: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Have the jobs done, and bring what came of them to the controller's cache."""
        jobs = args.pop("modules", None) or []
        if self._task.check_mode:
            return {"changed": True, "made": [], "compiler_output": []}
        files: dict[str, str] = {}
        for job in jobs:
            found = _build.source_files(job["src"], job["make_output"] or "")
            files.update(_workshop.names_of_sources(job["src"], found, job["source_digest"]))
        with tempfile.TemporaryDirectory() as folder:
            if own["header_content"]:
                brought = os.path.join(folder, _workshop.BROUGHT_HEADER)
                with open(brought, "wb") as stream:
                    stream.write(base64.b64decode(own["header_content"]))
                files[_workshop.BROUGHT_HEADER] = brought
            archive = _build.pack(files)
        if own["on_controller"]:
            return self._build_here(jobs, archive, args, own["cache"])
        answer = self._ask({**args, "modules": jobs}, task_vars, archive)
        content = answer.pop("_content", "")
        if answer.get("failed") or answer.get("unreachable"):
            return answer
        made = [item for item in answer["made"] if item["inputs"]]
        self._keep(made, content, args, own["cache"])
        return answer

    def _build_here(
        self, jobs: list[dict[str, Any]], archive: bytes, args: Mapping[str, Any], cache: str
    ) -> dict[str, Any]:
        if _elf.ELFTOOLS_IMPORT_ERROR:
            raise AnsibleActionFail("to build on the controller, its Python that runs Ansible needs pyelftools")
        here = _workshop.Workshop(_looking.run_here, cache, args.get("cc") or "gcc")
        with tempfile.TemporaryDirectory() as folder:
            try:
                _build.unpack(archive, folder)
                if args.get("header_name"):
                    here.keep_header(args["header_name"], os.path.join(folder, _workshop.BROUGHT_HEADER))
                made = here.make(jobs, folder, int(args.get("keep") or 1))
            except _workshop.DAMAGES as error:
                raise AnsibleActionFail(f"on the controller: {error}") from error
        answer = {"changed": made.changed, "made": made.items, "compiler_output": made.said}
        return {**answer, "warnings": made.warnings} if made.warnings else answer

    def _keep(self, made: list[dict[str, Any]], content: str, args: Mapping[str, Any], cache: str) -> None:
        """Put what a builder made into the controller's cache."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                if content:
                    _build.unpack(base64.b64decode(content), folder)
                else:
                    for item in made:
                        self._fetch(item["name"], item["inputs"], str(args.get("cache")), folder)
                for item in made:
                    with _cache.alone(cache, item["name"]):
                        taken = _cache.take_in(cache, folder, item["name"], item["inputs"], int(args.get("keep") or 1))
                    if not taken:
                        raise AnsibleActionFail(
                            f"module {item['name']}: what came from the builder is damaged; run again"
                        )
            except OSError as error:
                raise AnsibleActionFail(
                    f"what was built can't be kept on the controller: {error}; see redis_build_controller_cache"
                ) from error

    def _fetch(self, name: str, inputs: str, cache: str, folder: str) -> None:
        """Fetch one that is too large to come with the module's answer."""
        for file, remote in _cache.names_in_archive(cache, [(name, inputs)]).items():
            local = os.path.join(folder, file)
            os.makedirs(os.path.dirname(local), exist_ok=True)
            self._connection.fetch_file(remote, local)

    # ------------------------------------------------------------ lay

    def _step_lay(self, args: dict[str, Any], own: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Have on the host what it lacks, once its builder has done what it could."""
        share, seen, made = own["share"] or {}, own["seen"] or {}, own["made"] or {}
        host = task_vars.get("inventory_hostname", "")
        artifacts = dict(share["artifacts"])
        found, faults = _builders.settled(host, share, seen, made, forecast=self._task.check_mode)
        if faults:
            raise AnsibleActionFail("\n".join(faults))
        if self._task.check_mode:
            artifacts.update({name: {"path": "", "sha256": ""} for name in share["lacks"]})
            return {"changed": bool(share["lacks"]), "artifacts": artifacts}
        changed = bool(made.get("changed")) and share["builder"] == host
        here = {item["name"]: item["manifest"] for item in made.get("made") or [] if share["builder"] == host}
        pieces, files = [], {}
        for want in seen["wanted"]:
            name = want["name"]
            if name not in found:
                continue
            if here.get(name, {}).get("inputs") == found[name]:
                manifest = here[name]
                path = _cache.path_of(str(args.get("cache")), name, manifest["inputs"])
                artifacts[name] = {"path": path, "sha256": manifest["sha256"]}
                continue
            piece = {"name": name, "inputs": found[name], "artifact": want["artifact"], "sha256": want["source_digest"]}
            pieces.append(piece)
            if want["local"]:
                files[f"{name}/{found[name]}/{name}.so"] = want["local"]
            elif not want["artifact"]:
                files.update(_cache.names_in_archive(own["cache"], [(name, found[name])]))
        if not pieces:
            return {"changed": changed, "artifacts": artifacts}
        answer = self._ask({**args, "modules": pieces}, task_vars, _build.pack(files) if files else b"")
        if not answer.get("failed") and not answer.get("unreachable"):
            answer["artifacts"] = {**artifacts, **answer["artifacts"]}
            answer["changed"] = answer["changed"] or changed
        return answer

    # ------------------------------------------------------------ the host

    def _ask(self, args: Mapping[str, Any], task_vars: Mapping[str, Any], archive: bytes = b"") -> dict[str, Any]:
        """Run the module on the host, with what is sent to it."""
        sent: dict[str, str] = {}
        if archive and len(archive) <= _workshop.INLINE:
            sent = {"_content": base64.b64encode(archive).decode()}
        elif archive:
            sent = {"_archive": self._transfer(archive)}
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={**args, **sent}, task_vars=dict(task_vars)
        )
        return answer

    def _transfer(self, archive: bytes) -> str:
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote: str = self._connection._shell.join_path(self._connection._shell.tmpdir, "sent.tar.gz")
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(archive)
            stream.flush()
            self._transfer_file(stream.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote
