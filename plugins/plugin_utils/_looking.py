# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of a look at what a host has of its modules: what they are made of, and what is kept here.

It is the same whether the module redis_module_artifact looks, or redis_steps with others in one round trip.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any, Mapping, NamedTuple

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _builders,
    _cache,
    _declaration,
    _header,
    _host,
    _workshop,
)

OWN = ("modules", "header", "header_sha256", "controller_cache", "on_controller")
"""What a host is not told of a look."""


class Asked(NamedTuple):
    """A look on its way: what the modules are made of, by which header, and what the host is asked."""

    wanted: list[dict[str, Any]]
    header: str
    sources: dict[str, list[str]]
    args: dict[str, Any]


def asked(args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Asked:
    """Return what a host is asked for the arguments I(args) of a look. Raises AnsibleActionFail."""
    modules = args.get("modules") or []
    wanted = wants([entry for entry in modules if entry.get("state") != "absent"], task_vars)
    header = header_wanted(wanted, args.get("header") or "", args.get("header_sha256") or "")
    sources = {want["name"]: [want["source_digest"]] for want in wanted}
    rest = {key: value for key, value in args.items() if key not in OWN}
    return Asked(wanted, header, sources, {**rest, "_sources": sources, "_headers": [header] if header else []})


def told(look: Asked, args: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a host's answer with what the controller knows beside it."""
    cache = cache_of(args)
    found = {**answer, "wanted": look.wanted, "header": look.header, "held": _cache.held(cache, look.sources)}
    if boolean(args.get("on_controller") or False, strict=False):
        here = _workshop.Workshop(run_here, cache, args.get("cc") or "gcc")
        named = _builders.header_of(found)
        found["controller"] = here.look(_workshop.Wanted(look.sources, [named] if named else []), "")
    return found


def cache_of(args: Mapping[str, Any]) -> str:
    """Return where the controller keeps artifacts."""
    return os.path.expanduser(args.get("controller_cache") or "~/.cache/edgeops-redis-modules")


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


def wants(entries: list[dict[str, Any]], task_vars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the modules are made of, or fail with what is missing, of all of them at once."""
    wanted, faults = [], []
    for entry in entries:
        try:
            wanted.append(want_of(entry, task_vars))
        except AnsibleActionFail as error:
            faults.append(str(error.message))
    if faults:
        raise AnsibleActionFail("\n".join(faults))
    return wanted


def want_of(entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a module is made of, or fail with what is missing."""
    label = f"module {entry.get('name')}"
    faults = _declaration.entry_faults(entry)
    if faults:
        raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
    entry = _declaration.completed(entry, "/")
    want: dict[str, Any] = {"name": entry["name"], "src": "", "artifact": "", "local": "", "own_header": False}
    if entry["src"]:
        folder, files = _sources(label, entry, task_vars)
        return {
            **want,
            "src": folder,
            "entry": _build.options_of(entry),
            "own_header": any(os.path.basename(file) == _header.HEADER for file in files),
            "source_digest": _build.tree_digest(folder, files),
            "inputs": "",
        }
    # What is no URL is looked at at once: a wrong digest is the declaration's fault, whatever hosts have.
    local = "" if "://" in entry["artifact"] else _artifact(label, entry, task_vars)
    return {
        **want,
        "artifact": entry["artifact"],
        "local": local,
        "source_digest": entry["sha256"],
        "inputs": _build.inputs_digest({"sha256": entry["sha256"]}),
    }


def _find(label: str, path: str, task_vars: Mapping[str, Any]) -> str:
    folders = [str(task_vars.get("inventory_dir") or ""), str(task_vars.get("playbook_dir") or "")]
    found = _build.locate(path, folders)
    if found is None:
        looked = "" if os.path.isabs(path) else f"; looked in {', '.join(_build.search(folders))}"
        raise AnsibleActionFail(f"{label}: there is no {path} on the controller{looked}")
    return found


def _sources(label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return folder and files of the sources, or fail with what is missing."""
    folder = _find(label, entry["src"], task_vars)
    if not os.path.isdir(folder):
        raise AnsibleActionFail(f"{label}: src {folder} must be a folder; name the files in sources")
    files = _build.source_files(folder, entry.get("make_output") or "")
    faults = source_faults(entry, folder, files)
    if faults:
        raise AnsibleActionFail("\n".join(f"{label}: {fault}" for fault in faults))
    return folder, files


def _artifact(label: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
    """Return the path of the artifact on the controller, or fail where it is not the declared one."""
    path = _find(label, entry["artifact"], task_vars)
    digest = _host.sha256_of(path)
    if digest != entry["sha256"]:
        raise AnsibleActionFail(
            f"{label}: {path} has the digest {digest}, declared is {entry['sha256']}; correct the one that is wrong"
        )
    return path
