# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where artifacts are kept: artifacts/NAME/INPUTS/ holds NAME.so and manifest.json.

Hosts, builders and the controller have one each. INPUTS is a digest over everything that the file depends on, so "is it
there?" is one look. The manifest comes last and has the file's digest, so a file that was cut off or changed is none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _release

MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"


def folder_of(cache: str, name: str, inputs: str) -> str:
    """Return the folder of an artifact."""
    return os.path.join(cache, ARTIFACTS, name, inputs[: _release.SHORT])


def path_of(cache: str, name: str, inputs: str) -> str:
    """Return where the .so of an artifact lies."""
    return os.path.join(folder_of(cache, name, inputs), name + ".so")


def whole(cache: str, name: str, inputs: str) -> dict[str, Any]:
    """Return the manifest of a whole artifact; empty where there is none, or it was tampered with."""
    return _whole(folder_of(cache, name, inputs), name)


def _whole(folder: str, name: str) -> dict[str, Any]:
    manifest = _manifest(folder)
    try:
        same = _host.sha256_of(os.path.join(folder, name + ".so")) == manifest["sha256"]
    except (OSError, KeyError):
        return {}
    return manifest if same else {}


def _manifest(folder: str) -> dict[str, Any]:
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as stream:
            manifest = json.load(stream)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def held(cache: str, sources: Mapping[str, Collection[str]]) -> dict[str, list[dict[str, str]]]:
    """Return the whole artifacts of modules that were made of one of I(sources) (digests by name), the newest first.

    Each with what it takes to choose between them.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for name, digests in sources.items():
        for folder in reversed(_folders(cache, name)):
            manifest = _manifest(folder)
            if manifest.get("source_digest") in digests and _whole(folder, name):
                found.setdefault(name, []).append(
                    {
                        "path": os.path.join(folder, name + ".so"),
                        **{key: str(manifest.get(key, "")) for key in ("inputs", "request", "sha256")},
                        **{key: str(manifest.get("platform", {}).get(key, "")) for key in ("architecture", "libc")},
                    }
                )
    return found


def _folders(cache: str, name: str) -> list[str]:
    """Return the folders of a module's artifacts, the oldest first."""
    kept_in = os.path.join(cache, ARTIFACTS, name)
    try:
        folders = [os.path.join(kept_in, entry) for entry in os.listdir(kept_in)]
        return sorted(folders, key=lambda path: os.stat(path).st_mtime_ns)
    except OSError:
        return []


@contextlib.contextmanager
def alone(cache: str, name: str) -> Iterator[None]:
    """Wait until nobody else makes this module here: another instance of Redis on this host, or another run."""
    _release.make_folders(os.path.join(cache, "build"))
    with open(os.path.join(cache, "build", name + ".lock"), "wb") as stream:
        # The kernel gives it back with the process, whatever becomes of us.
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def store(cache: str, path: str, manifest: Mapping[str, Any]) -> None:
    """Put the file at I(path) and its manifest into the cache. Raises OSError."""
    name, folder = manifest["name"], folder_of(cache, manifest["name"], manifest["inputs"])
    _release.make_folders(folder)
    # root's on a host, the user's own on the controller.
    owner, group = os.geteuid(), os.getegid()
    _release.replace(path, os.path.join(folder, name + ".so"), owner, group, 0o755)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder) as stream:
        json.dump(manifest, stream, indent=2, sort_keys=True)
        stream.flush()
        _release.replace(stream.name, os.path.join(folder, MANIFEST), owner, group, 0o644)


def prune(cache: str, name: str, keep: int, spare: Iterable[str] = ()) -> None:
    """Drop a module's oldest artifacts of each platform beyond the number to keep; never those of I(spare) inputs."""
    spared = {folder_of(cache, name, inputs) for inputs in spare}
    by_platform: dict[str, list[str]] = {}
    for folder in _folders(cache, name):
        platform = json.dumps(_manifest(folder).get("platform"), sort_keys=True)
        by_platform.setdefault(platform, []).append(folder)
    for folders in by_platform.values():
        for folder in folders[: max(0, len(folders) - max(1, keep))]:
            if folder not in spared:
                shutil.rmtree(folder)


def names_in_archive(cache: str, artifacts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the files of artifacts, each a name and its inputs, by what an archive calls them."""
    files = {}
    for name, inputs in artifacts:
        folder = folder_of(cache, name, inputs)
        for file in (name + ".so", MANIFEST):
            files[f"{name}/{inputs}/{file}"] = os.path.join(folder, file)
    return files


def take_in(
    cache: str,
    folder: str,
    name: str,
    inputs: str,
    keep: int,
    judge: Callable[[str, Mapping[str, Any]], None] = lambda path, manifest: None,
) -> dict[str, Any]:
    """Store what an archive brought into I(folder) under names_in_archive(); return the manifest, empty if damaged.

    Raises OSError, and what I(judge) raises, before anything is stored.
    """
    brought = os.path.join(folder, name, inputs)
    manifest = _whole(brought, name)
    if (manifest.get("name"), manifest.get("inputs")) != (name, inputs):
        return {}
    judge(os.path.join(brought, name + ".so"), manifest)
    store(cache, os.path.join(brought, name + ".so"), manifest)
    prune(cache, name, keep, [inputs])
    return manifest
