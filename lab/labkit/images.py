# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts' images: one mmdebstrap a suite and kind, cached by the recipe's digest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labkit.config import Config
from labkit.errors import LabError
from labkit.files import locked, mounts_under, remove_tree, tail
from labkit.run import ENVIRONMENT, run
from labkit.state import load_state

BARE = ("systemd", "systemd-sysv", "dbus", "python3", "openssh-server", "iproute2", "ca-certificates", "sudo")
READY = ("redis-server", "build-essential", "nftables", "python3-redis", "python3-pyelftools", "python3-jmespath")
# What an edge site's image has, and no more; Debian 11 has no ansible-core.
SITE = ("redis-server", "git", "openssh-client")
SITE_SINCE_BOOKWORM = ("ansible-core",)
# What the machine's own apt was told about the network holds for the hosts' apt too.
INHERITED_APT_OPTIONS = ("Acquire::http::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
# Each host gets its own identity at its first boot; an image must not have one.
FORGET = 'rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf'


def sources(config: Config, suite: str) -> list[str]:
    """The lines of an image's sources.list."""
    if not config.mirror or not config.security_mirror:
        raise LabError(
            "this machine's apt sources name no Debian archive: say where packages come from with "
            "LAB_MIRROR and LAB_SECURITY_MIRROR"
        )
    return [
        f"deb {config.mirror} {suite} main",
        f"deb {config.mirror} {suite}-updates main",
        f"deb {config.security_mirror} {suite}-security main",
    ]


def inherited_apt_options() -> list[str]:
    """The machine's own apt options that hosts need as well."""
    output = run(["apt-config", "dump", "--format", "%f=%v%n", *INHERITED_APT_OPTIONS], check=False).stdout
    pairs = (line.partition("=") for line in output.splitlines())
    return [f'{name} "{value}";' for name, _, value in pairs if value]


def recipe(config: Config, suite: str, kind: str, apt_options: Iterable[str]) -> list[str]:
    """The mmdebstrap call, without the target folder."""
    more = {"bare": (), "ready": READY, "site": SITE + (SITE_SINCE_BOOKWORM if suite != "bullseye" else ())}
    packages = BARE + more[kind]
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        # No fsync for each unpacked file; a lab host's packages need not survive the machine's own crash.
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        *(f"--aptopt={option}" for option in apt_options),
        f"--customize-hook={FORGET}",
        suite,
        *sources(config, suite),
    ]


def recipe_key(command: Iterable[str]) -> str:
    """A changed recipe is another image."""
    return hashlib.sha256(json.dumps(list(command)).encode()).hexdigest()[:12]


def with_target(command: list[str], suite: str, target: Path) -> list[str]:
    """Put the target folder behind the suite, where mmdebstrap wants it."""
    place = command.index(suite) + 1
    return [*command[:place], str(target), *command[place:]]


def ensure_images(
    config: Config, wanted: Iterable[tuple[str, str]], say: Callable[[str], None]
) -> dict[tuple[str, str], Path]:
    """Make the images that are missing, side by side; return where each is."""
    pairs = sorted(set(wanted))
    options = inherited_apt_options()
    with ThreadPoolExecutor(max(1, len(pairs))) as pool:
        paths = list(pool.map(lambda pair: _ensure_image(config, pair[0], pair[1], options, say), pairs))
    return dict(zip(pairs, paths, strict=True))


def _ensure_image(config: Config, suite: str, kind: str, options: list[str], say: Callable[[str], None]) -> Path:
    command = recipe(config, suite, kind, options)
    path = config.images / f"{suite}-{kind}-{recipe_key(command)}"
    if path.is_dir():
        return path
    with locked(config.images / f".{suite}-{kind}.lock", wait=1800):
        if not path.is_dir():
            _make_image(config, command, f"{suite}-{kind}", path, say)
            _remove_old_images(config, f"{suite}-{kind}", path)
    return path


def _make_image(config: Config, command: list[str], stem: str, path: Path, say: Callable[[str], None]) -> None:
    """Make it beside its place and rename it: there is no such thing as half an image."""
    for leftover in config.images.glob(f".{stem}.*.new"):
        remove_tree(leftover)
    suite, _, kind = stem.partition("-")
    say(f"image {stem}: being made, once (about {60 if kind == 'ready' else 30} s)")
    temporary = config.images / f".{stem}.{os.getpid()}.new"
    log = config.images / f"{stem}.log"
    began = time.monotonic()
    with log.open("w") as output:
        status = subprocess.call(
            with_target(command, suite, temporary),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    if status:
        if temporary.exists():
            remove_tree(temporary)
        raise LabError(f"image {stem}: mmdebstrap failed ({log}):\n{tail(log)}")
    temporary.rename(path)
    say(f"image {stem}: made in {time.monotonic() - began:.0f} s")


def _remove_old_images(config: Config, stem: str, current: Path) -> None:
    """Remove images of former recipes, except those that a lab's disks lie on."""
    used: set[str] = set()
    for name in config.labs():
        state = load_state(config.lab(name))
        used.update(host.image for host in (state.hosts.values() if state else ()))
    for path in config.images.glob(f"{stem}-*"):
        if path.is_dir() and path != current and str(path) not in used and not mounts_under(path):
            remove_tree(path)
