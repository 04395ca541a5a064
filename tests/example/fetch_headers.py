#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch redismodule.h of each Redis version that the tests run against.

No Debian package ships the header, so it is taken out of Debian's own source
packages, through an apt configuration that is private to this run: the
machine's sources, lists and caches are neither used nor changed. apt checks
the archive's signatures; this script checks the sha256 of the header itself.

    python3 tests/example/fetch_headers.py [FOLDER]

leaves FOLDER/VERSION/redismodule.h (default folder: build/headers). What is
already there and has the right digest is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "lab"))
from labkit.mirrors import own_mirrors  # noqa: E402

MIRROR = os.environ.get("LAB_MIRROR") or own_mirrors()[0]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Header(NamedTuple):
    """One Redis version: the suite that has it and its header's digest."""

    suite: str
    sha256: str


# The main archive only: for trixie, the source in the security archive has
# answered 404, and its upstream tarball is the same.
HEADERS: dict[str, Header] = {
    "6.0.16": Header("bullseye", "221cb9cdeaff5156429b00818c378f1e3e81fb3184f564853efac3afd85e36d5"),
    "7.0.15": Header("bookworm", "dcc23952d82cd8f06e4fe6ee32de0b04d437cfe03779963230b3f0dde2c731e0"),
    "8.0.2": Header("trixie", "b9cf7b4345cbb6e3c49bdcf4716943f40426bdce7c59d928fb55e3d9b7e85a8e"),
}


def digest(path: Path) -> str:
    """Return the file's sha256 in hexadecimal, or an empty string without a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def private_apt(folder: Path, suite: str) -> dict[str, str]:
    """Write an apt configuration below the folder; return the environment to use it."""
    for name in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "state/status").touch()
    (folder / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {MIRROR} {suite} main\n", encoding="utf-8")
    (folder / "apt.conf").write_text(
        "".join(
            f'{key} "{value}";\n'
            for key, value in {
                "Dir::Etc": folder / "etc",
                "Dir::Etc::sourcelist": folder / "sources.list",
                "Dir::Etc::sourceparts": "/dev/null",
                "Dir::State": folder / "state",
                "Dir::State::status": folder / "state/status",
                "Dir::Cache": folder / "cache",
                "APT::Sandbox::User": "root",
                "Acquire::Languages": "none",
                "Acquire::Retries": "3",
            }.items()
        ),
        encoding="utf-8",
    )
    return {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}


def header_from_source(suite: str, version: str, folder: Path) -> bytes:
    """Download the source package with apt and return its src/redismodule.h."""
    env = private_apt(folder, suite)
    for command in (
        ["apt-get", "-q", "update"],
        # Without Debian's own files: an archive drops those at each update of the package, upstream's tarball stays.
        ["apt-get", "-q", "source", "--download-only", "--tar-only", "--only-source", "redis"],
    ):
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{suite}: {' '.join(command)} failed:\n{done.stdout}")
    tarballs = sorted(folder.glob("redis_*.orig.tar.*"))
    if [path.name.split(".orig")[0] for path in tarballs] != [f"redis_{version}"]:
        raise SystemExit(f"{suite} no longer has Redis {version}: {[p.name for p in tarballs]}")
    with tarfile.open(tarballs[0]) as archive:
        for member in archive:
            if member.name.split("/", 1)[-1] == "src/redismodule.h":
                content = archive.extractfile(member)
                assert content is not None
                return content.read()
    raise SystemExit(f"{tarballs[0].name} has no src/redismodule.h")


def fetch(target: Path) -> None:
    """Bring every header below the target folder, each by rename once it is verified."""
    for version, header in HEADERS.items():
        path = target / version / "redismodule.h"
        if digest(path) == header.sha256:
            print(f"{path}: present")
            continue
        with tempfile.TemporaryDirectory(prefix="redis-header-") as folder:
            content = header_from_source(header.suite, version, Path(folder))
        found = hashlib.sha256(content).hexdigest()
        if found != header.sha256:
            raise SystemExit(f"redismodule.h of {version}: sha256 {found}, not {header.sha256}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(path)
        print(f"{path}: fetched from {header.suite}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "build" / "headers")
    fetch(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
