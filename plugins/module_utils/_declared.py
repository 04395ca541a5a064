# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is declared of a host, as one digest: the controller's half of a receipt (see _receipt).

What the roles default to is part of the collection, so its own digest stands for it; what the user sets is taken as it
comes out for the host.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Callable, Iterable, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _declaration, _firewall, _host

CONCERNED = re.compile(r"redis_(modules|server|rollout|build|toolchain|preflight|firewall|verify)(_|$)")
"""The public variables of the roles that a rollout is made of."""

RESULTS = frozenset({"redis_build_artifacts", "redis_toolchain_found", "redis_firewall_found", "redis_verify_found"})
"""What those roles leave for each other."""

HOW = frozenset(
    {
        "redis_preflight_fail",
        "redis_preflight_ignore",
        "redis_rollout_allow_lost",
        "redis_rollout_allow_unseen",
        "redis_rollout_gate_timeout",
        "redis_rollout_gates",
        "redis_rollout_longest_ping",
        "redis_rollout_pause_file",
        "redis_rollout_roles_go_back",
        "redis_rollout_sentinel_password",
        "redis_rollout_sentinel_user",
        "redis_rollout_shards_at_once",
        "redis_rollout_stop_after",
        "redis_rollout_take_over_lock",
        "redis_rollout_waves",
        "redis_rollout_without_handover",
        "redis_verify_fail",
        "redis_verify_report_dir",
    }
)
"""Variables that say how a run goes about it, and nothing of where a host is to come to."""

MODULES_DIR = "/var/lib/redis/modules"
"""The module folder that the roles default to."""

CODE = ("roles", "plugins", "playbooks", "meta")


class UnknownError(ValueError):
    """What is declared can't be told, so nothing can be said of it; the text is for the operator."""


def names(variables: Iterable[str]) -> list[str]:
    """Return which of the variables say where a host is to come to."""
    return sorted(n for n in variables if CONCERNED.match(n) and n not in RESULTS and n not in HOW)


def plain(value: Any) -> Any:
    """Return a value of Ansible's as JSON has it: its own classes say where it is from, which is no difference."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item) for item in value]
        return items if isinstance(value, (list, tuple)) else sorted(items, key=str)
    return str(value)


def values(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what is declared of a host, by variable. Raises UnknownError where a template needs what is not known yet.

    I(template) works out a value; it may raise anything.
    """
    found = {}
    for name in names(variables):
        try:
            found[name] = plain(template(variables[name]))
        except Exception as error:  # Ansible's templates raise what they like
            raise UnknownError(f"{name} can't be told without more of the host: {error}") from error
    return found


def sources(declared: Mapping[str, Any], folders: Sequence[str]) -> dict[str, str]:
    """Return the digest of each source folder that a declared module is built from, and of a header that was given.

    I(folders) are where relative paths are looked for. Raises UnknownError.
    """
    found = _header(declared.get("redis_toolchain_header"), folders)
    where = declared.get("redis_rollout_modules_dir") or declared.get("redis_modules_dir") or MODULES_DIR
    for name, modules in declared.items():
        if name == "redis_modules" or name.endswith("_modules"):
            found.update(_sources_of(modules, str(where), folders))
    return found


def _header(path: Any, folders: Sequence[str]) -> dict[str, str]:
    """Return the digest of a redismodule.h on the controller; one behind a URL has its own declared."""
    if not path or "://" in str(path):
        return {}
    file = _build.locate(str(path), folders)
    if file is None:
        raise UnknownError(f"redis_toolchain_header: there is no {path} on the controller")
    return {str(path): _host.sha256_of(file)}


def _sources_of(modules: Any, where: str, folders: Sequence[str]) -> dict[str, str]:
    found = {}
    try:
        for entry in _declaration.declared(modules, where):
            if entry["state"] == "present" and entry["src"]:
                folder = _build.locate(entry["src"], folders)
                if folder is None or not os.path.isdir(folder):
                    raise UnknownError(f"module {entry['name']}: there is no folder {entry['src']} on the controller")
                files = _build.source_files(folder, entry["make_output"] or "")
                found[entry["src"]] = _build.tree_digest(folder, files)
    except (_declaration.DeclarationError, OSError) as error:
        raise UnknownError(str(error)) from error
    return found


def peers(
    declared: Mapping[str, Any], hosts: Sequence[str], variables: Callable[[str], Mapping[str, Any]], limit: str
) -> list[str]:
    """Return the addresses that the cluster's bus is open to, where they come of the inventory. Raises UnknownError.

    I(variables) gives those of a host of I(hosts). Empty where nobody asks for them.
    """
    clustered = str(declared.get("redis_server_cluster_enabled", False)).lower() in ("true", "yes", "on", "1")
    bus = declared.get("redis_firewall_cluster_bus_ports") or clustered
    if "redis_firewall_allowed_cidrs" not in declared or declared.get("redis_firewall_cluster_peers") or not bus:
        return []
    try:
        return _firewall.peers(hosts, [variables(host) for host in hosts], limit)
    except _firewall.FirewallError as error:
        raise UnknownError(str(error)) from error


def collection(folder: str) -> str:
    """Return a digest of the collection itself, at I(folder): what it makes of a declaration is part of it.

    An installed one lists the digests of its files; a checkout has to be read. Raises UnknownError.
    """
    try:
        return _collection(folder)
    except OSError as error:
        raise UnknownError(f"the collection can't be read: {error}") from error


def _collection(folder: str) -> str:
    listed = os.path.join(folder, "FILES.json")
    if os.path.exists(listed):
        return _host.sha256_of(listed)
    digest = hashlib.sha256()
    for part in CODE:
        for path, folders, files in os.walk(os.path.join(folder, part)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for file in sorted(files):
                full = os.path.join(path, file)
                if not os.path.exists(full):
                    # An editor's lock is a link to nowhere.
                    continue
                digest.update(f"{os.path.relpath(full, folder)}\0{_host.sha256_of(full)}\0".encode())
    return digest.hexdigest()


def digest(declared: Mapping[str, Any], **more: Any) -> str:
    """Return the digest over all of it.

    Where a module's artifact lies on the controller is no matter, as its own digest is declared.
    """
    modules = [
        {key: value for key, value in entry.items() if key != "artifact" or not entry.get("sha256")}
        for entry in declared.get("redis_modules") or []
    ]
    content = {"declared": {**declared, "redis_modules": modules}, **more}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
