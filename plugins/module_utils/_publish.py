# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay a fleet's repository out for sites that pull: who hands over what, and what the manifest says of it."""

from __future__ import annotations

import gzip
import json
import os
import re
import tarfile
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declaration, _host, _pull

ARTIFACTS, COLLECTION, WHEELS = "artifacts", "collection", "wheels"


class PublishError(ValueError):
    """What can't be laid out; the text is for the operator."""


def platform_name(host: Mapping[str, str]) -> str:
    """Return what a platform's folder is called, as C(x86_64-glibc2.31-redis6.0)."""
    libc = re.sub(r"[^a-z0-9.]", "", host["libc"].lower()) or "unknown"
    redis = ".".join(str(part) for part in _pull.numbers(host["redis"])[:2]) or "any"
    return f"{host['architecture']}-{libc}-redis{redis}"


def shares(
    modules: Mapping[str, Sequence[Mapping[str, Any]]], platforms: Mapping[str, Mapping[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """Return which of its I(modules) each host hands over: each as declared, once for a platform, by its first host."""
    built = set()
    found: dict[str, list[dict[str, Any]]] = {}
    for host, declared in modules.items():
        found[host] = []
        for module in declared:
            key = (platform_name(platforms[host]), module["name"], _pull.recipe(module))
            if module.get("state") != "absent" and key not in built:
                built.add(key)
                found[host].append(dict(module))
    return found


def entry(module: Mapping[str, Any], manifest: Mapping[str, Any], host: Mapping[str, str]) -> dict[str, str]:
    """Return what the repository's manifest says of an artifact that a host has built."""
    folder = "/".join([ARTIFACTS, platform_name(host), module["name"], manifest["inputs"][:16]])
    return {
        "module": module["name"],
        "recipe": _pull.recipe(module),
        "path": f"{folder}/{module['name']}.so",
        "sha256": manifest["sha256"],
        "architecture": manifest["architecture"],
        "glibc": manifest["glibc"],
        # A file that was built elsewhere is not of this host's header.
        "redis": host["redis"] if manifest["header_sha256"] else "",
    }


def merged(before: Iterable[Mapping[str, str]], built: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return all artifacts of the manifest: those of now, and those of platforms for which nothing was built now."""
    platforms = {artifact["path"].split("/")[1] for artifact in built}
    kept = [artifact for artifact in before if artifact["path"].split("/")[1] not in platforms]
    return sorted((dict(artifact) for artifact in [*kept, *built]), key=lambda artifact: artifact["path"])


def surplus(folder: str, artifacts: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the files below I(folder)/artifacts that belong to no artifact, relative."""
    wanted = {os.path.dirname(artifact["path"]) for artifact in artifacts}
    found = []
    for top, _folders, files in os.walk(os.path.join(folder, ARTIFACTS)):
        relative = os.path.relpath(top, folder)
        if relative not in wanted:
            found += [os.path.join(relative, name) for name in files]
    return sorted(found)


def pack_collection(folder: str, target_folder: str) -> tuple[str, bool]:
    """Pack the installed collection at I(folder), the same bytes each time; return the name and whether it is new.

    Raises PublishError and OSError.
    """
    try:
        with open(os.path.join(folder, "MANIFEST.json"), encoding="utf-8") as stream:
            about = json.load(stream)["collection_info"]
        with open(os.path.join(folder, "FILES.json"), encoding="utf-8") as stream:
            files = [file["name"] for file in json.load(stream)["files"] if file["ftype"] == "file"]
    except FileNotFoundError as error:
        raise PublishError(
            f"the collection in {folder} is a checkout; run the playbook from an installed one, as "
            "ansible-galaxy collection install leaves it"
        ) from error
    name = f"{about['namespace']}-{about['name']}-{about['version']}.tar.gz"
    os.makedirs(target_folder, exist_ok=True)
    target, new = os.path.join(target_folder, name), os.path.join(target_folder, f".{name}.new")
    with open(new, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed, tarfile.open(
        fileobj=packed, mode="w", format=tarfile.GNU_FORMAT
    ) as archive:
        for file in sorted([*files, "MANIFEST.json", "FILES.json"]):
            _add(archive, os.path.join(folder, file), file)
    changed = not os.path.exists(target) or _host.sha256_of(target) != _host.sha256_of(new)
    os.replace(new, target)
    for other in os.listdir(target_folder):
        if other != name:
            os.unlink(os.path.join(target_folder, other))
    return name, changed


def _add(archive: tarfile.TarFile, path: str, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = os.path.getsize(path)
    member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
    with open(path, "rb") as stream:
        archive.addfile(member, stream)


def wheel_sets(folder: str) -> dict[str, list[dict[str, str]]]:
    """Return the wheels that lie in I(folder)/wheels, by set. Raises OSError."""
    top = os.path.join(folder, WHEELS)
    sets = sorted(os.listdir(top)) if os.path.isdir(top) else []
    return {
        name: [
            {"path": "/".join([WHEELS, name, file]), "sha256": _host.sha256_of(os.path.join(top, name, file))}
            for file in sorted(os.listdir(os.path.join(top, name)))
            if file.endswith(".whl")
        ]
        for name in sets
    }


def manifest(
    branch: str, collection: Mapping[str, str], artifacts: Sequence[Mapping[str, str]], wheels: Any, also: Sequence[str]
) -> str:
    """Return the text of the repository's manifest."""
    told = {
        "format": _pull.FORMAT,
        "branch": branch,
        "collection": collection,
        "artifacts": artifacts,
        "wheels": wheels,
        "also": list(also),
    }
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def download_command(python: str, name: str, requirements: str, target: str) -> list[str]:
    """Return how pip fetches a wheel set, each file checked against its pinned digest.

    Raises PublishError where the set is not known.
    """
    command = [
        python,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--quiet",
        "--no-deps",
        "--require-hashes",
    ]
    command += ["--only-binary=:all:", "--dest", target, "--requirement", requirements]
    if name == _pull.ANY_PYTHON:
        return command
    found = re.fullmatch(r"cp(3)(\d+)-([a-z0-9_]+)", name)
    if not found:
        raise PublishError(f"wheel set {name!r} is neither any nor named as cp39-x86_64")
    major, minor, architecture = found.groups()
    command += ["--implementation", "cp", "--python-version", f"{major}.{minor}"]
    command += [word for abi in (f"cp{major}{minor}", "abi3", "none") for word in ("--abi", abi)]
    # The oldest glibc first that has manylinux wheels of everything in the set: Debian 11 has 2.31.
    platforms = [f"{tag}_{architecture}" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    return [*command, *(word for tag in platforms for word in ("--platform", tag))]


def module_faults(modules: Any, folder: str) -> list[str]:
    """Return what stands against publishing modules; Raises DeclarationError where they can't be read."""
    return [
        f"module {module['name']}: src {module['src']} is absolute; write it relative to the inventory, as a site "
        "knows the artifact by it"
        for module in _declaration.declared(modules, folder)
        if module["src"] and os.path.isabs(module["src"])
    ]
