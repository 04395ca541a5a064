#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a module's artifact on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_module_artifact
short_description: Have a module's artifact on a host, built from sources or taken as it is
version_added: 0.1.0
description:
  - From one entry of C(redis_modules), leaves the module's .so and a C(manifest.json) in a cache on the host and
    returns where. Nothing outside the cache is touched.
  - It is built again only when an input changes, judged by digest - any source or header, a flag, the compiler, the C
    library, the server's header - and never by time stamps. The same inputs give the same bytes.
  - Sources and artifacts with a relative path are looked for beside the inventory, in the playbook's folder and in the
    current folder of the controller, in this order. They are sent, in one transfer, only where the host needs them.
author:
  - edgeops contributors (@edgeops)
options:
  name:
    description: The module's name, as MODULE LIST reports it.
    type: str
    required: true
  src:
    description: A folder with C sources on the controller. Exactly one of O(src) and O(artifact) is needed.
    type: str
  sources:
    description: What to compile, relative to O(src). Every C(.c) file directly in O(src) where nothing is given.
    type: list
    elements: str
    default: []
  include_dirs:
    description: Folders with headers, relative to O(src), which itself is always one.
    type: list
    elements: str
    default: []
  defines:
    description: Macros, as C(NAME) or C(NAME=VALUE).
    type: list
    elements: str
    default: []
  cflags:
    description: Flags for the compiler after the default ones, one an item.
    type: list
    elements: str
    default: []
  ldflags:
    description: Flags for the linker after the default ones, one an item.
    type: list
    elements: str
    default: []
  libraries:
    description: Libraries to link with, by their bare names, as V(m).
    type: list
    elements: str
    default: []
  make_target:
    description: A target of the module's own Makefile in O(src), run with redismodule.h in reach of C(CPATH).
    type: str
  make_output:
    description: The .so that O(make_target) leaves, relative to O(src).
    type: str
  make_args:
    description: Further arguments of C(make), one an item, as V(V=1).
    type: list
    elements: str
    default: []
  artifact:
    description: A built .so, by its path on the controller or a URL that the host can reach.
    type: str
  sha256:
    description: The digest of O(artifact), which needs it.
    type: str
  header:
    description: The path on the host of the redismodule.h to build with. A copy in O(src) goes before it.
    type: path
  cache:
    description: Where artifacts are kept on the host.
    type: path
    default: /var/cache/edgeops-redis-modules
  cc:
    description: The C compiler.
    type: str
    default: gcc
  keep:
    description: How many artifacts of each module to keep in the cache.
    type: int
    default: 5
  _source:
    description: The action's own - files and digest of the sources.
    type: dict
  _archive:
    description: The action's own - where it put the sources on the host.
    type: path
  _upload:
    description: The action's own - where it put the artifact on the host.
    type: path
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show but the artifact's name.
    support: none
  action:
    description: Part of it runs on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Build a module of two files
  edgeops.redis_modules.redis_module_artifact:
    name: sensorwindow
    src: examples/sensorwindow
    sources: [sensorwindow.c, window.c]
    header: /var/cache/edgeops-redis-modules/headers/7.0.15/redismodule.h
  register: artifact

- name: Build a module by its own Makefile
  edgeops.redis_modules.redis_module_artifact:
    name: sensorwindow
    src: examples/sensorwindow
    make_target: all
    make_output: sensorwindow.so

- name: Take one that was built elsewhere
  edgeops.redis_modules.redis_module_artifact:
    name: sensorwindow
    artifact: https://files.example.com/sensorwindow-2-x86_64.so
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""

RETURN = r"""
path:
  description: Where the artifact lies on the host; empty in check mode where it would have to be built or fetched.
  returned: success
  type: str
  sample: /var/cache/edgeops-redis-modules/artifacts/sensorwindow/3f2a9c01d4e5b677/sensorwindow.so
sha256:
  description: Its digest; empty where O(ignore:path) is.
  returned: success
  type: str
manifest:
  description: What the artifact was made of and what it needs.
  returned: success, where there is an artifact
  type: dict
  contains:
    name:
      description: The module.
      type: str
    sha256:
      description: Digest of the artifact.
      type: str
    size:
      description: Its size in bytes.
      type: int
    inputs:
      description: Digest over all that it was made of.
      type: str
    origin:
      description: V(src), V(make) or V(artifact).
      type: str
    source_digest:
      description: Digest over the sources; that of the artifact itself where it was built elsewhere.
      type: str
    header_sha256:
      description: Digest of the redismodule.h it was built with; empty where that is not known.
      type: str
    compiler:
      description: The first line of C(gcc --version); empty where it was built elsewhere.
      type: str
    commands:
      description: The commands that built it.
      type: list
      elements: list
    platform:
      description: Architecture and C library of the host that built it.
      type: dict
    architecture:
      description: What the ELF file is for.
      type: str
    needed:
      description: The shared libraries it asks for.
      type: list
      elements: str
    glibc:
      description: The oldest glibc it can run with.
      type: str
    executable_stack:
      description: Whether it asks for a stack that is executable.
      type: bool
    text_relocations:
      description: Whether its code is changed while it is loaded.
      type: bool
    nodelete:
      description: Whether MODULE UNLOAD leaves its code in the process.
      type: bool
    allocators:
      description: The functions by which it asks the system for memory, which maxmemory does not see.
      type: list
      elements: str
compiler_output:
  description: What the compiler said, warnings above all.
  returned: when something was built
  type: list
  elements: str
"""

import contextlib
import fcntl
import json
import os
import shutil
import tarfile
import tempfile
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.urls import open_url

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _declaration,
    _elf,
    _header,
    _host,
    _release,
)

MANIFEST = "manifest.json"


class Artifact:
    """One module's artifact in the cache of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.name: str = module.params["name"]
        self.source: dict[str, Any] = module.params["_source"] or {}
        self.origin = "artifact" if self.params["artifact"] else "make" if self.params["make_target"] else "src"
        self.header: str = self.params["header"] or ""

    def inputs(self) -> dict[str, Any]:
        """Return all that the artifact depends on."""
        if self.origin == "artifact":
            return {"sha256": self.params["sha256"]}
        keys = _declaration.BUILD_KEYS + _declaration.MAKE_KEYS
        return {
            "recipe": _build.RECIPE,
            "source_digest": self.source["digest"],
            "options": {key: self.params[key] for key in keys},
            "header_sha256": _host.sha256_of(self.header) if self.header else "",
            "compiler": self.compiler(),
            "platform": self.platform(),
        }

    def compiler(self) -> str:
        """Return the first line of the compiler's version; empty where there is no compiler yet."""
        if not self.module.get_bin_path(self.params["cc"]):
            return ""
        _code, out, _err = self.module.run_command([self.params["cc"], "--version"])
        return out.splitlines()[0] if out else ""

    def platform(self) -> dict[str, str]:
        """Return architecture and C library of this host."""
        facts = _host.facts_of_platform()
        return {"architecture": facts["architecture"], "libc": facts["libc"]}

    def folder(self, inputs: str) -> str:
        """Return the folder of this artifact in the cache."""
        return os.path.join(self.params["cache"], "artifacts", self.name, inputs[: _release.SHORT])

    def cached(self, folder: str) -> dict[str, Any]:
        """Return the manifest of a whole artifact in the cache; empty where there is none, or it was tampered with."""
        try:
            with open(os.path.join(folder, MANIFEST), encoding="utf-8") as stream:
                manifest: dict[str, Any] = json.load(stream)
            whole = _host.sha256_of(os.path.join(folder, self.name + ".so")) == manifest["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return manifest if whole else {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else builds this module here: another instance of Redis on this host, or another run."""
        _release.make_folders(os.path.join(self.params["cache"], "build"))
        with open(os.path.join(self.params["cache"], "build", self.name + ".lock"), "wb") as stream:
            # The kernel gives it back with the process, whatever becomes of us.
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def build(self) -> tuple[str, list[list[str]], list[str]]:
        """Compile; return the path of the .so, the commands and what they said. Raises BuildError and OSError."""
        if not self.compiler():
            raise _build.BuildError(
                f"there is no C compiler {self.params['cc']!r} on this host; run the role redis_toolchain first"
            )
        # One fixed name: it goes into the bytes of what a foreign Makefile builds.
        folder = os.path.join(self.params["cache"], "build", self.name, "src")
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)
        os.makedirs(os.path.join(folder, ".objects"))
        _build.unpack(self.params["_archive"], folder)
        if _build.tree_digest(folder, self.source["files"]) != self.source["digest"]:
            raise _build.BuildError("the sources changed on the controller while they were sent; run again")
        self.lay_header(folder)
        output = os.path.normpath(self.params["make_output"] or self.name + ".so")
        if self.origin == "make":
            commands = [_build.make_command(self.params)]
        else:
            sources = self.params["sources"] or _build.default_sources(self.source["files"])
            header_dir = os.path.dirname(self.header)
            commands = _build.compile_commands(self.params, sources, self.params["cc"], header_dir, folder, output)
        said: list[str] = []
        for command in commands:
            said += self.run(command, folder)
        built = os.path.join(folder, output)
        if not os.path.isfile(built):
            raise _build.BuildError(f"{' '.join(commands[-1])} ended well, but left no {output}; correct make_output")
        return built, commands, said

    def lay_header(self, folder: str) -> None:
        """Lay the server's header where Makefiles look for it as a file: in the sources, or in the folder above."""
        for target in (os.path.join(folder, _header.HEADER), os.path.join(os.path.dirname(folder), _header.HEADER)):
            if self.header and not os.path.exists(target):
                shutil.copyfile(self.header, target)

    def run(self, command: list[str], folder: str) -> list[str]:
        """Run one command of the build and return the lines it said. Raises BuildError with the compiler's lines."""
        environment = _build.build_environment(os.path.dirname(self.header))
        code, out, err = self.module.run_command(command, cwd=folder, environ_update=environment)
        # What make itself prints on standard output is no finding; what compilers say goes to standard error.
        lines, more = _build.shown(err if code == 0 else err + out, folder)
        if more:
            lines.append("(more lines were left out)")
        if code != 0:
            reason = f"it does not build ({command[0]}: exit status {code}):\n" + "\n".join(lines)
            if _build.missing_header(err + out):
                reason += f"\nredismodule.h was not found. To mend it, {_header.MEND}"
            raise _build.BuildError(f"{reason}\nthe command was: {' '.join(command)}")
        return lines

    def fetch(self) -> str:
        """Return a local path of the given artifact. Raises BuildError and OSError."""
        path: str = self.params["_upload"] or self.download()
        digest = _host.sha256_of(path)
        if digest != self.params["sha256"]:
            raise _build.BuildError(
                f"{self.params['artifact']} has the digest {digest}, declared is {self.params['sha256']}; "
                "correct the one that is wrong"
            )
        return path

    def download(self) -> str:
        """Return a local copy of what the URL names. Raises OSError."""
        descriptor, path = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(descriptor, "wb") as stream:
            shutil.copyfileobj(open_url(self.params["artifact"], timeout=30), stream)
        return str(path)

    def store(
        self, path: str, folder: str, inputs: str, facts: dict[str, Any], commands: list[list[str]]
    ) -> dict[str, Any]:
        """Put the artifact and its manifest into the cache; the manifest last, as it says that both are whole."""
        inspection = _elf.inspect(path)
        platform = self.platform()
        misfits = _elf.misfits(inspection, platform["architecture"], platform["libc"])
        if misfits:
            raise _build.BuildError(
                f"{self.params['artifact'] or 'what was built'} can't be loaded here: {'; '.join(misfits)}"
            )
        manifest = {
            "name": self.name,
            "sha256": _host.sha256_of(path),
            "size": os.path.getsize(path),
            "inputs": inputs,
            "origin": self.origin,
            "source_digest": facts.get("source_digest") or facts.get("sha256"),
            "header_sha256": facts.get("header_sha256", ""),
            "compiler": facts.get("compiler", ""),
            "commands": commands,
            "platform": platform,
            **inspection.as_dict(),
        }
        _release.make_folders(folder)
        _release.replace(path, os.path.join(folder, self.name + ".so"), 0, 0, 0o755)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder) as stream:
            json.dump(manifest, stream, indent=2, sort_keys=True)
            stream.flush()
            _release.replace(stream.name, os.path.join(folder, MANIFEST), 0, 0, 0o644)
        return manifest

    def prune(self) -> None:
        """Drop the oldest artifacts of this module beyond the number to keep."""
        kept_in = os.path.join(self.params["cache"], "artifacts", self.name)
        folders = [os.path.join(kept_in, entry) for entry in os.listdir(kept_in)]
        folders.sort(key=lambda path: os.stat(path).st_mtime_ns)
        for path in folders[: max(0, len(folders) - max(1, self.params["keep"]))]:
            shutil.rmtree(path)

    def is_needed(self) -> str:
        """Return what the controller has to send before this can go on; empty where nothing."""
        if self.origin != "artifact":
            return "" if self.params["_archive"] else "source"
        return "" if self.params["_upload"] or "://" in self.params["artifact"] else "artifact"


def main() -> None:
    """Entry point."""
    own = ("name", "src", "artifact", "sha256", *_declaration.BUILD_KEYS, *_declaration.MAKE_KEYS)
    module = AnsibleModule(
        argument_spec={
            **{key: _declaration.MODULE_OPTIONS[key] for key in own},
            "header": {"type": "path"},
            "cache": {"type": "path", "default": "/var/cache/edgeops-redis-modules"},
            "cc": {"type": "str", "default": "gcc"},
            "keep": {"type": "int", "default": 5},
            # Given by the action: what the sources are, and where it put what it sent.
            "_source": {"type": "dict"},
            "_archive": {"type": "path"},
            "_upload": {"type": "path"},
        },
        supports_check_mode=True,
    )
    artifact = Artifact(module)
    if artifact.header and not os.path.exists(artifact.header):
        module.fail_json(msg=f"module {artifact.name}: there is no header at {artifact.header}")
    facts = artifact.inputs()
    inputs = _build.inputs_digest(facts)
    folder = artifact.folder(inputs)
    path = os.path.join(folder, artifact.name + ".so")
    manifest = artifact.cached(folder)
    if manifest:
        module.exit_json(changed=False, path=path, sha256=manifest["sha256"], manifest=manifest)
    if module.check_mode:
        module.exit_json(changed=True, path="", sha256="")
    if artifact.is_needed():
        module.exit_json(changed=True, path="", sha256="", needs=artifact.is_needed())
    if _elf.ELFTOOLS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("pyelftools"), exception=_elf.ELFTOOLS_IMPORT_ERROR)
    commands: list[list[str]] = []
    said: list[str] = []
    try:
        with artifact.alone():
            manifest = artifact.cached(folder)
            if manifest:
                module.exit_json(changed=False, path=path, sha256=manifest["sha256"], manifest=manifest)
            if artifact.origin == "artifact":
                built = artifact.fetch()
            else:
                built, commands, said = artifact.build()
            manifest = artifact.store(built, folder, inputs, facts, commands)
            artifact.prune()
    except (_build.BuildError, tarfile.TarError, EOFError, OSError) as error:
        module.fail_json(msg=f"module {artifact.name}: {error}")
    if said:
        module.warn(f"module {artifact.name}: the compiler said:\n" + "\n".join(said))
    module.exit_json(changed=True, path=path, sha256=manifest["sha256"], manifest=manifest, compiler_output=said)


if __name__ == "__main__":
    main()
