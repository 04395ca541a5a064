# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From sources to an artifact: what is run, and when it has to be run again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declaration

RECIPE = 2
"""Raised whenever the way of building changes, so that every artifact is built anew."""

COMPILE_FLAGS = (
    "-fPIC",
    "-std=gnu99",
    "-O2",
    "-g",
    "-Wall",
    "-Werror=implicit-function-declaration",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
)
LINK_FLAGS = ("-shared", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--build-id=sha1")

LEFT_OUT_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__"})
LEFT_OUT_ENDINGS = (".o", ".xo", ".lo", ".d")
"""Left-overs of somebody's own build: newer than the sources, they would make C(make) believe it is done."""

SHOWN_LINES = 40


class BuildError(Exception):
    """A build that cannot be, or failed; the text is for the operator."""


def search(folders: Iterable[str]) -> list[str]:
    """Return where a relative path is looked for on the controller, in order; the current folder comes last."""
    return list(dict.fromkeys([folder for folder in folders if folder] + [os.getcwd()]))


def locate(path: str, folders: Iterable[str]) -> str | None:
    """Return the absolute path of what a user named, or None where it is nowhere."""
    expanded = os.path.expanduser(path)
    for folder in [""] if os.path.isabs(expanded) else search(folders):
        candidate = os.path.normpath(os.path.join(folder, expanded))
        if os.path.exists(candidate):
            return candidate
    return None


def source_files(folder: str, make_output: str = "") -> list[str]:
    """Return the files of a source tree that a build may need, relative and sorted.

    Version control, object files and I(make_output) itself are left out.
    """
    found = []
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT_FOLDERS)
        for name in files:
            relative = os.path.relpath(os.path.join(top, name), folder)
            # An editor's lock file (.#name) is a link to nowhere.
            if (
                not name.endswith(LEFT_OUT_ENDINGS)
                and not name.startswith(".#")
                and relative != os.path.normpath(make_output or ".")
            ):
                found.append(relative)
    return sorted(found)


def default_sources(files: Iterable[str]) -> list[str]:
    """Return what is compiled where an entry names no sources: every .c directly in src."""
    return sorted(f for f in files if f.endswith(".c") and not f.startswith(".") and os.sep not in f)


def tree_digest(folder: str, files: Sequence[str]) -> str:
    """Return one digest over names, x bits and contents; time stamps and owners do not count. Raises OSError."""
    total = hashlib.sha256()
    for relative in files:
        path = os.path.join(folder, relative)
        with open(path, "rb") as stream:
            content = hashlib.sha256(stream.read()).hexdigest()
        executable = "x" if os.access(path, os.X_OK) else "-"
        total.update(f"{relative}\0{executable}\0{content}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def pack(files: Mapping[str, str]) -> bytes:
    """Return a gzip tar of files by their names in it: one transfer instead of one for each. Raises OSError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6, dereference=True) as archive:
        for name, path in files.items():
            archive.add(path, arcname=name, recursive=False)
    return buffer.getvalue()


def unpack(archive: bytes, folder: str) -> None:
    """Unpack what pack() returned into I(folder). Raises OSError, EOFError, tarfile.TarError and BuildError."""
    folder = os.path.normpath(folder)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as stream:
        for member in stream.getmembers():
            target = os.path.normpath(os.path.join(folder, member.name))
            if not target.startswith(folder + os.sep) or not member.isreg():
                raise BuildError(f"what was sent holds {member.name!r}, which is no plain file with a relative name")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            source = stream.extractfile(member)
            if source is None:
                raise BuildError(f"what was sent holds {member.name!r} without its content")
            with open(target, "wb") as out:
                out.write(source.read())
            os.chmod(target, 0o755 if member.mode & 0o100 else 0o644)


def inputs_digest(inputs: Mapping[str, Any]) -> str:
    """Return one digest over all that a build depends on (JSON types only)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def options_of(module: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry, filled in, says of how its module is built."""
    return {key: module[key] for key in _declaration.BUILD_KEYS + _declaration.MAKE_KEYS}


def inputs_of(
    module: Mapping[str, Any], source_digest: str, header_sha256: str, compiler: str, platform: Mapping[str, str]
) -> dict[str, Any]:
    """Return all that decides on the bytes of what is built; I(platform) and I(compiler) are those of the builder."""
    return {
        "recipe": RECIPE,
        "source_digest": source_digest,
        "options": options_of(module),
        "header_sha256": header_sha256,
        "compiler": compiler,
        "platform": {"architecture": platform["architecture"], "libc": platform["libc"]},
    }


def request_of(module: Mapping[str, Any], source_digest: str, header: str) -> str:
    """Return a digest over what is asked of whoever builds: all but what only a machine with a compiler can tell.

    I(header) names the header: a version of Redis, one that was given, or none.
    """
    return inputs_digest(
        {"recipe": RECIPE, "source_digest": source_digest, "options": options_of(module), "header": header}
    )


def include_flags(module: Mapping[str, Any], header_dir: str) -> list[str]:
    """Return the -I flags: the module's own folders first, so that its own redismodule.h wins, then the server's.

    A module of Redis' own source tree says C(#include "../redismodule.h"): C(header_dir/modules) answers that.
    """
    flags = ["-I."] + [f"-I{folder}" for folder in module["include_dirs"]]
    if header_dir:
        flags += [f"-I{header_dir}", f"-I{header_dir}/modules"]
    return flags


def compile_commands(
    module: Mapping[str, Any], sources: Sequence[str], cc: str, header_dir: str, folder: str, output: str
) -> list[list[str]]:
    """Return the commands, in order: gcc -c for each source, then gcc -shared. Run with I(folder) as directory.

    The folder's own name is mapped away and the random seed of symbols is the source's name, so the same inputs
    give the same bytes wherever they lie.
    """
    defines = [f"-D{define}" for define in module["defines"]]
    mapping = [f"-ffile-prefix-map={folder}=."] + ([f"-ffile-prefix-map={header_dir}=redis"] if header_dir else [])
    objects, commands = [], []
    for number, source in enumerate(sources):
        target = f".objects/{number}-{os.path.basename(source)}.o"
        objects.append(target)
        commands.append(
            [
                cc,
                *COMPILE_FLAGS,
                *mapping,
                f"-frandom-seed={source}",
                *include_flags(module, header_dir),
                *defines,
                *module["cflags"],
                "-MMD",
                "-c",
                source,
                "-o",
                target,
            ]
        )
    libraries = [f"-l{library}" for library in module["libraries"]]
    commands.append([cc, *LINK_FLAGS, "-o", output, *objects, *module["ldflags"], *libraries, "-lc"])
    return commands


def make_command(module: Mapping[str, Any]) -> list[str]:
    """Return the command for a module with its own Makefile."""
    return ["make", module["make_target"], *module["make_args"]]


def build_environment(header_dir: str) -> dict[str, str]:
    """Return the environment of every build: messages in English, no clock, the server's header within reach.

    CPATH is looked up after all -I flags, so a Makefile that finds its own redismodule.h keeps it.
    """
    environment = {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}
    if header_dir:
        environment["CPATH"] = f"{header_dir}:{header_dir}/modules"
    return environment


def missing_header(output: str) -> bool:
    """Whether a compiler's output says that redismodule.h could not be found."""
    return any("redismodule.h" in line and "No such file" in line for line in output.splitlines())


def shown(output: str, folder: str) -> tuple[list[str], bool]:
    """Return the compiler's lines with the build folder's name taken out, and whether lines were left out."""
    lines = [line.replace(folder + "/", "") for line in output.splitlines() if line.strip()]
    return lines[:SHOWN_LINES], len(lines) > SHOWN_LINES
