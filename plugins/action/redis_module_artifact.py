# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_module_artifact: find the sources, keep what was built, send only what is needed."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _builders,
    _cache,
    _declaration,
    _elf,
    _header,
    _host,
    _workshop,
)

MODULE = "edgeops.redis_modules.redis_module_artifact"

CONTROLLERS = ("controller_cache", "of", "on_controller", "share", "seen", "made", "header_content")
"""What is for the action alone; a host is not told of it."""


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


def header_wanted(wanted: list[dict[str, Any]], header: str, header_sha256: str) -> str:
    """Return which header modules are built with, as Workshop.look() takes it; empty where each brings its own."""
    built = [want for want in wanted if _builders.is_built(want)]
    if not built:
        return ""
    if header:
        return header
    if header_sha256:
        return _header.given_name(header_sha256)
    return "" if all(want["own_header"] for want in built) else _workshop.SERVER


def run_here(command: list[str], cwd: str | None = None, environ_update: Mapping[str, str] | None = None) -> Any:
    """Run a command on the controller, as AnsibleModule.run_command does on a host."""
    environment = {**os.environ, **(environ_update or {})}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


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
        own["cache"] = os.path.expanduser(own["controller_cache"] or "~/.cache/edgeops-redis-modules")
        own["on_controller"] = boolean(own["on_controller"] or False, strict=False)
        step = getattr(self, f"_step_{args.get('step')}", None)
        if step is None:
            raise AnsibleActionFail("step must be look, build or lay")
        result.update(step(args, own, task_vars))
        return result

    # ------------------------------------------------------------ look

    def _step_look(self, args: dict[str, Any], own: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what a host has and what it wants; of a builder, what it has of what the hosts want."""
        header, header_sha256 = args.pop("header", None) or "", args.pop("header_sha256", None) or ""
        modules = args.pop("modules", None) or []
        if own["of"] is not None:
            sources, headers = _builders.sources_of(own["of"]), _builders.headers_of(own["of"])
            # A builder that can't be reached or asked may not be needed; the plan tells. Only here is that no failure.
            try:
                answer = self._ask({**args, "_sources": sources, "_headers": headers}, task_vars)
            except AnsibleConnectionFailure as error:
                return {"changed": False, "msg": str(error)}
            return {"changed": False, "msg": answer.get("msg", "")} if answer.get("failed") else answer
        wanted = self._wants([entry for entry in modules if entry.get("state") != "absent"], task_vars)
        name = header_wanted(wanted, header, header_sha256)
        sources = {want["name"]: [want["source_digest"]] for want in wanted}
        answer = self._ask({**args, "_sources": sources, "_headers": [name] if name else []}, task_vars)
        if answer.get("failed") or answer.get("unreachable"):
            return answer
        answer.update(wanted=wanted, header=name, held=_cache.held(own["cache"], sources))
        if own["on_controller"]:
            here = _workshop.Workshop(run_here, own["cache"], args.get("cc") or "gcc")
            named = _builders.header_of(answer)
            answer["controller"] = here.look(_workshop.Wanted(sources, [named] if named else []), "")
        return answer

    def _wants(self, entries: list[dict[str, Any]], task_vars: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what the modules are made of, or fail with what is missing, of all of them at once."""
        wanted, faults = [], []
        for entry in entries:
            try:
                wanted.append(self._want(entry, task_vars))
            except AnsibleActionFail as error:
                faults.append(str(error.message))
        if faults:
            raise AnsibleActionFail("\n".join(faults))
        return wanted

    def _want(self, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a module is made of, or fail with what is missing."""
        label = f"module {entry.get('name')}"
        faults = _declaration.entry_faults(entry)
        if faults:
            raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
        entry = _declaration.completed(entry, "/")
        want: dict[str, Any] = {"name": entry["name"], "src": "", "artifact": "", "local": "", "own_header": False}
        if entry["src"]:
            folder, files = self._sources(label, entry, task_vars)
            return {
                **want,
                "src": folder,
                "entry": _build.options_of(entry),
                "own_header": any(os.path.basename(file) == _header.HEADER for file in files),
                "source_digest": _build.tree_digest(folder, files),
                "inputs": "",
            }
        # What is no URL is looked at at once: a wrong digest is the declaration's fault, whatever hosts have.
        local = "" if "://" in entry["artifact"] else self._artifact(label, entry, task_vars)
        return {
            **want,
            "artifact": entry["artifact"],
            "local": local,
            "source_digest": entry["sha256"],
            "inputs": _build.inputs_digest({"sha256": entry["sha256"]}),
        }

    def _find(self, label: str, path: str, task_vars: Mapping[str, Any]) -> str:
        folders = [str(task_vars.get("inventory_dir") or ""), str(task_vars.get("playbook_dir") or "")]
        found = _build.locate(path, folders)
        if found is None:
            looked = "" if os.path.isabs(path) else f"; looked in {', '.join(_build.search(folders))}"
            raise AnsibleActionFail(f"{label}: there is no {path} on the controller{looked}")
        return found

    def _sources(self, label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return folder and files of the sources, or fail with what is missing."""
        folder = self._find(label, entry["src"], task_vars)
        if not os.path.isdir(folder):
            raise AnsibleActionFail(f"{label}: src {folder} must be a folder; name the files in sources")
        files = _build.source_files(folder, entry.get("make_output") or "")
        faults = source_faults(entry, folder, files)
        if faults:
            raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
        return folder, files

    def _artifact(self, label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        """Return the path of the artifact on the controller, or fail where it is not the declared one."""
        path = self._find(label, entry["artifact"], task_vars)
        digest = _host.sha256_of(path)
        if digest != entry["sha256"]:
            raise AnsibleActionFail(
                f"{label}: {path} has the digest {digest}, declared is {entry['sha256']}; correct the one that is wrong"
            )
        return path

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
        here = _workshop.Workshop(run_here, cache, args.get("cc") or "gcc")
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
