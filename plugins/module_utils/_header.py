# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the redismodule.h of a host's own server in its distribution's source package.

No binary package ships the file. The source package of the same upstream version has it.
"""

from __future__ import annotations

import glob
import hashlib
import lzma
import os
import re
import shlex
import shutil
import tarfile
from typing import Callable, Tuple

Run = Callable[..., Tuple[int, str, str]]

HEADER = "redismodule.h"


def given_name(sha256: str) -> str:
    """Return the name of the folder in the cache that keeps a header which was given by its digest."""
    return "given-" + sha256.lower()[:16]


MEND = (
    "give redis_toolchain_header a path on the controller or a URL with its sha256, or put the redismodule.h "
    "that the module was written for into its src (it is src/redismodule.h of Redis' own sources)"
)


class HeaderError(Exception):
    """The header can't be had this way; the text is for the operator."""


def upstream(version: str) -> str:
    """Return the upstream part of a Debian version: C("7.0.15") of C("5:7.0.15-1~deb12u6")."""
    return re.sub(r"-[^-]*$", "", version.split(":", 1)[-1]).split("+")[0].split("~")[0]


def deb_src_lines(text: str) -> str:
    """Return the one-line sources of an apt list as source-package sources; everything else is dropped."""
    lines = []
    for raw in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+((?:\[[^\]]*\]\s+)?(?!cdrom:).*)", raw)
        if match:
            lines.append("deb-src " + match.group(1))
    return "".join(line + "\n" for line in dict.fromkeys(lines))


def deb_src_stanzas(text: str) -> str:
    """Return the stanzas of a deb822 .sources file with their Types turned to deb-src; disabled ones are dropped."""
    stanzas = []
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = "\n".join(lines)
        if not re.search(r"(?im)^types:", fields) or re.search(
            r"(?im)^enabled:\s*(no|false|without|off|disable|0)\b", fields
        ):
            continue
        stanzas.append(re.sub(r"(?im)^types:.*$", "Types: deb-src", fields))
    return "\n\n".join(stanzas) + "\n" if stanzas else ""


def source_versions(showsrc: str, version: str) -> list[str]:
    """Return the source package versions with the wanted upstream version, from C(apt-cache showsrc), newest last."""
    found = re.findall(r"(?m)^Version: (\S+)", showsrc)
    return list(dict.fromkeys(v for v in found if upstream(v) == version))


def from_tarballs(folder: str, version: str) -> bytes:
    """Return redismodule.h out of the upstream tarball in I(folder). Raises HeaderError."""
    for path in sorted(glob.glob(os.path.join(folder, "*.tar.*"))):
        if path.endswith((".asc", ".sig")):
            continue
        try:
            content = _member(path, f"src/{HEADER}")
        except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
            raise HeaderError(f"{os.path.basename(path)} of Redis {version} can't be read: {error}") from error
        if content:
            return content
    raise HeaderError(f"the source package of Redis {version} holds no src/{HEADER}")


def has_upstream(folder: str, showsrc: str) -> bool:
    """Whether I(folder) holds an upstream tarball of Redis as C(apt-cache showsrc) knows it, by its SHA-256."""
    for path in glob.glob(os.path.join(folder, "*.orig.tar.*")):
        with open(path, "rb") as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        if re.search(rf"(?m)^ {digest} \d+ {re.escape(os.path.basename(path))}$", showsrc):
            return True
    return False


def _member(path: str, name: str) -> bytes:
    """Return a file out of the one folder that an upstream tarball holds; empty where it is not there."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg() and member.name.split("/", 1)[-1] == name:
                stream = archive.extractfile(member)
                return stream.read() if stream is not None else b""
    return b""


def from_debian(run: Run, version: str, folder: str, etc: str = "/etc/apt") -> bytes:
    """Fetch the source package by a private apt configuration and return its header; the host's own is untouched.

    I(folder) is an empty folder to work in. Raises HeaderError and OSError.
    """
    options = _private_apt(folder, etc)
    code, _out, err = run(["apt-get", *options, "-q", "update"])
    if code != 0:
        raise HeaderError(f"the index of source packages can't be fetched: {_last(err)}")
    code, out, err = run(["apt-cache", *options, "showsrc", "redis"])
    candidates = source_versions(out, version)
    if not candidates:
        raise HeaderError(f"the distribution has no source package of Redis {version}")
    said = ""
    for candidate in candidates:
        download = os.path.join(folder, "src")
        shutil.rmtree(download, ignore_errors=True)
        os.mkdir(download)
        # Not every file of a security update is kept on every mirror. Debian's own files are not needed, and the next
        # candidate has the same upstream file.
        code, _out, said = run(
            ["apt-get", *options, "-q", "source", "--download-only", f"redis={candidate}"], cwd=download
        )
        if code == 0 or has_upstream(download, out):
            return from_tarballs(download, version)
    raise HeaderError(f"the source package of Redis {version} can't be fetched: {_last(said)}")


def _private_apt(folder: str, etc: str) -> list[str]:
    """Write source-package sources made from the host's own into I(folder); return apt's options for them."""
    parts = os.path.join(folder, "parts")
    for name in (parts, os.path.join(folder, "lists", "partial"), os.path.join(folder, "cache", "archives", "partial")):
        os.makedirs(name)
    sources = ""
    for path in [os.path.join(etc, "sources.list"), *sorted(glob.glob(os.path.join(etc, "sources.list.d", "*.list")))]:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as stream:
                sources += deb_src_lines(stream.read())
    stanzas = ""
    for path in sorted(glob.glob(os.path.join(etc, "sources.list.d", "*.sources"))):
        with open(path, encoding="utf-8", errors="replace") as stream:
            stanzas += deb_src_stanzas(stream.read()) + "\n"
    for name, text in (("host.list", sources), ("host.sources", stanzas)):
        with open(os.path.join(parts, name), "w", encoding="utf-8") as stream:
            stream.write(text)
    settings: dict[str, str] = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": os.path.join(folder, "lists"),
        "Dir::Cache": os.path.join(folder, "cache"),
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def from_redhat(run: Run, version: str, folder: str) -> bytes:
    """Fetch the source RPM by dnf and return its header. Raises HeaderError and OSError."""
    code, _out, err = run(["dnf", "-q", "download", "--source", "--destdir", folder, f"redis-{version}"])
    packages = glob.glob(os.path.join(folder, "*.src.rpm"))
    if code != 0 or not packages:
        raise HeaderError(f"dnf can't download the source package of Redis {version}: {_last(err)}")
    code, _out, err = run(
        "rpm2cpio " + shlex.quote(packages[0]) + " | cpio -idm --quiet '*.tar.*'", cwd=folder, use_unsafe_shell=True
    )
    if code != 0:
        raise HeaderError(f"the source package can't be unpacked: {_last(err)}")
    return from_tarballs(folder, version)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
