# SPDX-License-Identifier: GPL-3.0-or-later
"""What all labs of this machine share: the indexes they hold, the sysctls they changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.config import RUN_DIR, Config
from labkit.files import boot_id, locked, mounts_under, write_atomically
from labkit.hosts import NSPAWN_RUN
from labkit.network import LINKS, NETNS_FOLDER, read_sysctl, write_sysctl
from labkit.plan import free_index
from labkit.run import run
from labkit.state import Registration, Registry, Setting, decode_registry, encode_registry, wanted_sysctls

REGISTRY = RUN_DIR / "registry.json"
SYSCTLS = ("net.ipv4.ip_forward", "fs.inotify.max_user_instances")


@contextmanager
def registry() -> Iterator[Registry]:
    """The registry under its lock; written back at the end, gone with the last lab."""
    with locked(RUN_DIR / "lock"):
        found = read_registry()
        try:
            yield found
        finally:
            if found.labs or found.sysctls:
                write_atomically(REGISTRY, encode_registry(found))
            else:
                REGISTRY.unlink(missing_ok=True)
                (RUN_DIR / "lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    RUN_DIR.rmdir()


def read_registry() -> Registry:
    """The registry as it is now."""
    boot = boot_id()
    try:
        return decode_registry(REGISTRY.read_text(), boot)
    except FileNotFoundError:
        return Registry(boot)


def taken_indexes(shared: Registry) -> set[int]:
    """Indexes that a lab holds, or whose bridge exists though no lab is known to hold it."""
    bridges = {int(p.name[7:]) for p in LINKS.glob("edgelab*") if p.name[7:].isdigit()}
    return set(shared.labs) | bridges


def register(shared: Registry, config: Config, name: str, hosts: int, wish: int | None) -> int:
    """Give a lab an index, and note what is to be put back when the last lab goes."""
    folder = config.lab(name)
    index = shared.index_of(folder)
    if index is None:
        if not shared.labs:
            shared.netns_folder_was_mounted = str(NETNS_FOLDER) in mounts_under(NETNS_FOLDER)
        index = free_index(taken_indexes(shared), config.ranges.labs(), wish)
    shared.labs[index] = Registration(str(folder), name, hosts)
    return index


def raise_sysctls(shared: Registry) -> None:
    """Set what the labs need, keeping the values from before the first that changed them."""
    now = {name: read_sysctl(name) for name in SYSCTLS}
    total = sum(lab.hosts for lab in shared.labs.values())
    for name, value in wanted_sysctls(total, now).items():
        before = shared.sysctls[name].before if name in shared.sysctls else now[name]
        shared.sysctls[name] = Setting(before, value)
        # On disk before the machine is changed, should we be killed in between.
        write_atomically(REGISTRY, encode_registry(shared))
        write_sysctl(name, value)


def put_back(shared: Registry, say: Callable[[str], None]) -> None:
    """After the last lab: the machine as it was before the first."""
    if shared.labs:
        return
    for name, setting in sorted(shared.sysctls.items()):
        now = read_sysctl(name)
        if now == setting.ours:
            write_sysctl(name, setting.before)
        elif now != setting.before:
            say(f"{name} is {now}, which no lab set: left as it is (before the labs it was {setting.before})")
    shared.sysctls.clear()
    # `ip netns add` mounts its folder on itself where the root mount is private.
    if not shared.netns_folder_was_mounted and NETNS_FOLDER.is_dir() and not any(NETNS_FOLDER.iterdir()):
        run(["umount", str(NETNS_FOLDER)], check=False)
        with contextlib.suppress(OSError):
            NETNS_FOLDER.rmdir()
    for folder in (*(NSPAWN_RUN / n for n in ("propagate", "locks", "unix-export")), NSPAWN_RUN):
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
