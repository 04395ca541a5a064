# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine does for artifacts: tell what it has, build, take in. A host, a builder, and the controller alike."""

from __future__ import annotations

import base64
import os
import shutil
import tarfile
from typing import Any, Callable, Collection, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _cache,
    _elf,
    _header,
    _host,
    _release,
)

SERVER = "server"
"""Stands for the header of the machine's own server, whichever version that is."""

INLINE = 8 << 20
"""Bytes of files that travel inside a module's arguments or its answer; what is larger is better off in a transfer."""

BROUGHT_HEADER = _header.HEADER
"""What the archive of sources calls a header that comes with it."""

DAMAGES = (_build.BuildError, tarfile.TarError, EOFError, OSError)
"""What can go wrong with a build or an artifact; each says what for the operator."""


class Wanted(NamedTuple):
    """What a look is about: the source digests of each module, and the headers to look for (SERVER among them)."""

    sources: Mapping[str, Collection[str]]
    headers: Sequence[str] = ()


class Built(NamedTuple):
    """An artifact, whether it is new, and what the compiler said."""

    manifest: dict[str, Any]
    new: bool
    said: list[str]


class Made(NamedTuple):
    """What became of jobs: an item for each, what compilers said, and the files of all that was made."""

    items: list[dict[str, Any]]
    changed: bool
    said: list[str]
    warnings: list[str]
    files: dict[str, str]

    def packed(self) -> str:
        """Return the files in one archive, in base64; empty where they are too large to travel in an answer."""
        if not self.files or sum(os.path.getsize(path) for path in self.files.values()) > INLINE:
            return ""
        return base64.b64encode(_build.pack(self.files)).decode()


class Workshop:
    """One machine's tools and cache."""

    def __init__(self, run: _host.Run, cache: str, cc: str) -> None:
        self.run = run
        self.cache = cache
        self.cc = cc

    def look(self, wanted: Wanted, binary: str) -> dict[str, Any]:
        """Return platform, compiler, headers and artifacts: all that a plan of who builds what goes by."""
        redis = _host.server_version(self.run, binary)
        headers = {name: self.header(redis if name == SERVER else name) for name in wanted.headers}
        return {
            "platform": self.platform(),
            "redis": redis,
            "compiler": self.compiler(),
            "headers": headers,
            "artifacts": _cache.held(self.cache, wanted.sources),
        }

    def header(self, name: str) -> dict[str, str]:
        """Return name, path and digest of a header: a file of this machine, or one of the cache by its name."""
        path = name if os.path.isabs(name) else os.path.join(self.cache, "headers", name, _header.HEADER)
        try:
            return {"name": name, "path": path, "sha256": _host.sha256_of(path) if name else ""}
        except OSError:
            return {"name": name, "path": path, "sha256": ""}

    def compiler(self) -> str:
        """Return the first line of the compiler's version; empty where there is no compiler."""
        if not shutil.which(self.cc):
            return ""
        _code, out, _err = self.run([self.cc, "--version"])
        return out.splitlines()[0] if out else ""

    def platform(self) -> dict[str, str]:
        """Return architecture and C library of this machine."""
        facts = _host.facts_of_platform()
        return {"architecture": facts["architecture"], "libc": facts["libc"]}

    def keep_header(self, name: str, file: str) -> None:
        """Keep the header in a file by its name, as redis_header does. Raises OSError."""
        folder = os.path.join(self.cache, "headers", name)
        _release.make_folders(os.path.join(folder, "modules"))
        _release.replace(file, os.path.join(folder, _header.HEADER), os.geteuid(), os.getegid(), 0o644)

    def make(self, jobs: Iterable[Mapping[str, Any]], brought: str, keep: int) -> Made:
        """Have what each job asks for; one that fails keeps no other from being made."""
        items: list[dict[str, Any]] = []
        said: list[str] = []
        warnings: list[str] = []
        files: dict[str, str] = {}
        changed = False
        for job in jobs:
            item: dict[str, Any] = {"name": job["name"], "request": job["request"], "inputs": "", "fault": ""}
            items.append(item)
            try:
                built = self.have(job, source_folder(brought, job["source_digest"]), keep)
            except DAMAGES as error:
                item["fault"] = str(error)
                continue
            item.update(inputs=built.manifest["inputs"], manifest=built.manifest)
            changed = changed or built.new
            said += built.said
            if built.said:
                warnings.append(f"module {job['name']}: the compiler said:\n" + "\n".join(built.said))
            files.update(_cache.names_in_archive(self.cache, [(job["name"], item["inputs"])]))
        return Made(items, changed, said, warnings, files)

    def told(self, manifest: Mapping[str, Any]) -> dict[str, str]:
        """Return path and digest of an artifact, as the roles that follow take them."""
        path = _cache.path_of(self.cache, manifest["name"], manifest["inputs"])
        return {"path": path, "sha256": manifest["sha256"]}

    def have(self, job: Mapping[str, Any], sources: str, keep: int) -> Built:
        """Return the artifact that a job asks for, built where it is not there yet from what lies in I(sources).

        Raises one of DAMAGES.
        """
        manifest = _cache.whole(self.cache, job["name"], job["inputs"]) if job["inputs"] else {}
        if manifest:
            return Built(manifest, False, [])
        compiler = self.compiler()
        if not compiler:
            raise _build.BuildError(f"there is no C compiler {self.cc!r} here; run the role redis_toolchain first")
        header = self.header(job["header"]) if job["header"] else {"path": "", "sha256": ""}
        if job["header"] and not header["sha256"]:
            raise _build.BuildError(f"there is no header at {header['path']}")
        facts = _build.inputs_of(job, job["source_digest"], header["sha256"], compiler, self.platform())
        inputs = _build.inputs_digest(facts)
        # One at a time, as all take the same folder to build in; and what another built meanwhile is there.
        with _cache.alone(self.cache, job["name"]):
            manifest = _cache.whole(self.cache, job["name"], inputs)
            if manifest:
                return Built(manifest, False, [])
            path, commands, said = self.build(job, sources, header["path"])
            origin = "make" if job["make_target"] else "src"
            manifest = self.store(job["name"], path, "what was built", inputs, origin, facts, commands, job["request"])
            _cache.prune(self.cache, job["name"], keep, [inputs])
        return Built(manifest, True, said)

    def build(self, job: Mapping[str, Any], sources: str, header: str) -> tuple[str, list[list[str]], list[str]]:
        """Compile; return the path of the .so, the commands and what they said. Raises BuildError and OSError."""
        # One fixed name: it goes into the bytes of what a foreign Makefile builds.
        folder = os.path.join(self.cache, "build", job["name"], "src")
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)
        if os.path.isdir(sources):
            shutil.copytree(sources, folder)
        files = _build.source_files(folder)
        if _build.tree_digest(folder, files) != job["source_digest"]:
            raise _build.BuildError("the sources changed on the controller while they were sent; run again")
        os.makedirs(os.path.join(folder, ".objects"))
        lay_header(header, folder)
        output = os.path.normpath(job["make_output"] or job["name"] + ".so")
        if job["make_target"]:
            commands = [_build.make_command(job)]
        else:
            named = job["sources"] or _build.default_sources(files)
            commands = _build.compile_commands(job, named, self.cc, os.path.dirname(header), folder, output)
        said: list[str] = []
        for command in commands:
            said += self.step(command, folder, header)
        built = os.path.join(folder, output)
        if not os.path.isfile(built):
            raise _build.BuildError(f"{' '.join(commands[-1])} ended well, but left no {output}; correct make_output")
        return built, commands, said

    def step(self, command: list[str], folder: str, header: str) -> list[str]:
        """Run one command of the build and return the lines it said. Raises BuildError with the compiler's lines."""
        environment = _build.build_environment(os.path.dirname(header))
        code, out, err = self.run(command, cwd=folder, environ_update=environment)
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

    def store(
        self,
        name: str,
        path: str,
        called: str,
        inputs: str,
        origin: str,
        facts: Mapping[str, Any],
        commands: list[list[str]],
        request: str = "",
    ) -> dict[str, Any]:
        """Put a new artifact and its manifest into the cache.

        Raises BuildError, where it can't be loaded here, and OSError.
        """
        platform = self.platform()
        inspection = _elf.inspect(path)
        refuse_misfits(inspection, called, platform)
        manifest = {
            "name": name,
            "sha256": _host.sha256_of(path),
            "size": os.path.getsize(path),
            "inputs": inputs,
            "request": request,
            "origin": origin,
            "source_digest": facts.get("source_digest") or facts.get("sha256"),
            "header_sha256": facts.get("header_sha256", ""),
            "compiler": facts.get("compiler", ""),
            "commands": commands,
            "platform": platform,
            **inspection.as_dict(),
        }
        _cache.store(self.cache, path, manifest)
        return manifest

    def judge(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Raise BuildError where this machine can't load what another has built: its C library may be newer."""
        platform = manifest["platform"]
        try:
            refuse_misfits(
                _elf.inspect(path), f"what was built on {platform['architecture']}, {platform['libc']}", self.platform()
            )
        except _build.BuildError as error:
            raise _build.BuildError(
                f"{error}. Have it built on a machine like this one, or an older one: see redis_build_on"
            ) from error

    def lay(
        self, piece: Mapping[str, Any], brought: str, download: Callable[[str], str], keep: int
    ) -> tuple[dict[str, Any], bool]:
        """Have an artifact that was made elsewhere; return its manifest and whether it is new. Raises one of DAMAGES.

        I(brought) is the folder that the controller's archive was unpacked to, I(download) fetches a URL.
        """
        name, inputs = piece["name"], piece["inputs"]
        with _cache.alone(self.cache, name):
            manifest = _cache.whole(self.cache, name, inputs)
            if manifest:
                return manifest, False
            if not piece["artifact"]:
                manifest = _cache.take_in(self.cache, brought, name, inputs, keep, self.judge)
                if not manifest:
                    raise _build.BuildError("what was sent is not what was built; run again")
                return manifest, True
            url = "://" in piece["artifact"]
            path = download(piece["artifact"]) if url else os.path.join(brought, name, inputs, name + ".so")
            digest = _host.sha256_of(path)
            if digest != piece["sha256"]:
                raise _build.BuildError(
                    f"{piece['artifact']} has the digest {digest}, declared is {piece['sha256']}; "
                    "correct the one that is wrong"
                )
            manifest = self.store(name, path, piece["artifact"], inputs, "artifact", {"sha256": digest}, [])
            _cache.prune(self.cache, name, keep, [inputs])
            return manifest, True


def refuse_misfits(inspection: _elf.Inspection, called: str, platform: Mapping[str, str]) -> None:
    """Raise BuildError where this machine can't load what was inspected."""
    misfits = _elf.misfits(inspection, platform["architecture"], platform["libc"])
    if misfits:
        raise _build.BuildError(f"{called} can't be loaded here: {'; '.join(misfits)}")


def lay_header(header: str, folder: str) -> None:
    """Lay the server's header where Makefiles look for it as a file: in the sources, or in the folder above."""
    for target in (os.path.join(folder, _header.HEADER), os.path.join(os.path.dirname(folder), _header.HEADER)):
        if header and not os.path.exists(target):
            shutil.copyfile(header, target)


def source_folder(brought: str, source_digest: str) -> str:
    """Return where the archive of sources has those of a job: two hosts may declare two modules of one name."""
    return os.path.join(brought, source_digest[: _release.SHORT])


def names_of_sources(folder: str, files: Iterable[str], source_digest: str) -> dict[str, str]:
    """Return the files of a source tree by what the archive of sources calls them."""
    short = source_digest[: _release.SHORT]
    return {f"{short}/{file}": os.path.join(folder, file) for file in files}
