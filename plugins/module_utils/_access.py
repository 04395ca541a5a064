# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can change a module's file, or put another in its place: what FileState does not tell.

Who can write a folder can rename what is in it, so each folder above a module counts as much as the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import Callable, Iterator, NamedTuple

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

ACCESS_ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"

# linux/fs.h: _IOR and _IOW of ('f', 1 and 2, long); POWER numbers the directions its own way.
_LONG = struct.calcsize("l") << 16
_READ, _WRITE = (0x40000000, 0x80000000) if os.uname().machine.startswith("ppc") else (0x80000000, 0x40000000)
GET_FLAGS = _READ | _LONG | 0x6601
SET_FLAGS = _WRITE | _LONG | 0x6602
FLAGS = {0x10: "immutable (chattr +i)", 0x20: "append-only (chattr +a)"}
"""Bits against which nobody can change, rename or remove a file, or anything in a folder; root neither."""


class Acl(NamedTuple):
    """One named entry of a POSIX ACL, as C(user bob): I(rights) are what it says, I(effective) what its mask leaves."""

    who: str
    rights: int
    effective: int


class Access(NamedTuple):
    """What is at a path, not followed where it is a link.

    I(kind) is file, folder, link or other; I(target) is where a link leads in the end. I(group_rights) are those of
    the owning group alone, which the mode does not tell where there is an ACL. I(hands_down) are the named entries
    that what is made in a folder gets. I(names) is the number of hard links, I(flags) what chattr set.
    """

    path: str
    kind: str
    owner: str
    group: str
    mode: int
    names: int = 1
    target: str = ""
    group_rights: int = 0
    acl: tuple[Acl, ...] = ()
    hands_down: tuple[Acl, ...] = ()
    flags: tuple[str, ...] = ()


def parse_acl(raw: bytes) -> tuple[int | None, tuple[Acl, ...]]:
    """Return the owning group's effective rights and the named entries, from the xattr of a POSIX ACL."""
    entries = [struct.unpack_from("<HHI", raw, at) for at in range(4, len(raw) - 7, 8)]
    masks = [rights for tag, rights, _number in entries if tag == 0x10]
    mask = masks[0] if masks else 7
    group = None
    named = []
    for tag, rights, number in entries:
        if tag == 0x02:
            named.append(Acl(f"user {_host.owner_name(number)}", rights, rights & mask))
        elif tag == 0x08:
            named.append(Acl(f"group {_host.group_name(number)}", rights, rights & mask))
        elif tag == 0x04:
            group = rights & mask
    return group, tuple(named)


def look(path: str) -> Access | None:
    """Return what is at I(path); None where nothing is. Raises OSError where that can't be seen."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    kind = next((name for test, name in kinds if test(found.st_mode)), "other")
    mode = stat.S_IMODE(found.st_mode)
    group_rights, bits = mode >> 3 & 7, 0
    acl: tuple[Acl, ...] = ()
    hands_down: tuple[Acl, ...] = ()
    if kind in ("file", "folder"):
        of_group, acl = parse_acl(_attribute(path, ACCESS_ACL))
        group_rights = group_rights if of_group is None else of_group
        hands_down = parse_acl(_attribute(path, DEFAULT_ACL))[1] if kind == "folder" else ()
        bits = _flags(path)
    return Access(
        path=path,
        kind=kind,
        owner=_host.owner_name(found.st_uid),
        group=_host.group_name(found.st_gid),
        mode=mode,
        names=found.st_nlink if kind == "file" else 1,
        target=os.path.realpath(path) if kind == "link" else "",
        group_rights=group_rights,
        acl=acl,
        hands_down=hands_down,
        flags=tuple(text for bit, text in FLAGS.items() if bits & bit),
    )


def _attribute(path: str, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        # No such ACL, or a file system that has none.
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return b""
        raise


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flags(path: str) -> int:
    """Return the bits that chattr sets; 0 on a file system that has none."""
    try:
        with _opened(path) as descriptor:
            answer: bytes = fcntl.ioctl(descriptor, GET_FLAGS, bytes(8))
            return int(struct.unpack("=i", answer[:4])[0])
    except OSError:
        return 0


def _set_flags(path: str, bits: int) -> None:
    with _opened(path) as descriptor:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("=i", bits) + bytes(4))


def free(path: str) -> int:
    """Take off what keeps root from changing a file or folder; return the bits of before, 0 where there were none.

    Raises OSError with a sentence where it can't be.
    """
    bits = _flags(path) if os.path.lexists(path) and not os.path.islink(path) else 0
    holding = [text for bit, text in FLAGS.items() if bits & bit]
    if not holding:
        return 0
    try:
        _set_flags(path, bits & ~0x30)
    except OSError as error:
        why = f"that can't be taken off here ({error.strerror}); run chattr -ia {path}"
        raise OSError(f"{path} is {' and '.join(holding)}, and {why}") from error
    return bits


@contextlib.contextmanager
def freed(path: str) -> Iterator[None]:
    """Take off what keeps root from making files in a folder, and put it back."""
    bits = free(path)
    try:
        yield
    finally:
        if bits and os.path.lexists(path):
            _set_flags(path, bits)


def plain(path: str) -> None:
    """Leave a file or folder with owner, group and mode alone: no ACL, nothing that chattr set. Raises OSError."""
    free(path)
    for name in (ACCESS_ACL, DEFAULT_ACL):
        if _attribute(path, name):
            os.removexattr(path, name, follow_symlinks=False)


# What is judged. Nothing below looks at a host.


def rights_text(rights: int) -> str:
    """Return C(rw-) for 6."""
    return "".join(letter if rights & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


def differences(found: Access | None) -> list[str]:
    """Return what gives others more than owner, group and mode say, or keeps root from mending it."""
    if found is None:
        return []
    if found.kind not in ("file", "folder"):
        what = f"a symbolic link to {found.target}" if found.kind == "link" else "no regular file"
        return [f"{found.path} is {what}"]
    more = [entry for entry in found.acl if entry.rights & ~(found.mode & 7)]
    said = [f"an ACL gives {entry.who} {rights_text(entry.rights)}" for entry in more]
    said += [f"a default ACL gives {entry.who} {rights_text(entry.rights)} on new files" for entry in found.hands_down]
    said += [f"it is {flag}" for flag in found.flags]
    if found.names > 1:
        said.append(f"it has {found.names} names (hard links), and can be changed under each")
    return said


def folder_differences(found: Access | None, group: str) -> list[str]:
    """Return how the module folder differs from root's own that all can read; a rollout mends it."""
    if found is None or found.kind != "folder":
        return []
    said = [
        f"{label} is {have}, wanted {want}"
        for label, have, want in (
            ("owner", found.owner, "root"),
            ("group", found.group, group),
            ("mode", f"{found.mode:04o}", "0755"),
        )
        if want and have != want
    ]
    return [f"its folder {found.path}: {text}" for text in [*said, *differences(found)]]


def writers(found: Access) -> list[str]:
    """Return who but root can rename what is in a folder."""
    who = [] if found.owner == "root" else [f"its owner {found.owner}"]
    if found.mode & stat.S_ISVTX:
        return who
    if found.group_rights & 2 and found.group != "root":
        who.append(f"group {found.group}")
    if found.mode & 2:
        who.append("everybody")
    return who + [entry.who for entry in found.acl if entry.effective & 2 and entry.who != "user root"]


def parents(folder: str) -> list[str]:
    """Return the folders above a path, the outermost first."""
    found = []
    path = os.path.normpath(folder)
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found[::-1]


def place_faults(
    folder: str, user: str, data_folder: str, inner: tuple[str, ...], see: Callable[[str], Access | None] = look
) -> list[str]:
    """Return why the module folder can't be trusted whatever it holds; empty where it can.

    I(inner) are folders in it that root alone may have made. The service's own data folder may be its I(user)'s: in
    the service, the module folder in it is a mount of its own that can be neither renamed nor removed.
    """
    faults = []
    for path in [*parents(folder), os.path.normpath(folder)]:
        found = see(path)
        if found is None:
            break
        if found.kind != "folder":
            what = f"a symbolic link to {found.target}" if found.kind == "link" else "no folder"
            faults.append(f"{path} is {what}: set redis_modules_dir to a path without it")
            break
        who = writers(found) if path != os.path.normpath(folder) else []
        if path == os.path.normpath(data_folder):
            who = [one for one in who if one != f"its owner {user}"]
        if who:
            faults.append(
                f"{path} can be written by {', '.join(who)}, who could put another folder in the place of {folder}. "
                f"Make it root's alone (chown root {path}; chmod go-w {path}; setfacl -b {path}), or set "
                "redis_modules_dir to a folder that has nothing but root's above it, as /usr/lib/redis/modules"
            )
    for name in inner:
        found = see(os.path.join(os.path.normpath(folder), name))
        if found is not None and (found.kind != "folder" or writers(found)):
            what = "is no folder" if found.kind != "folder" else f"can be written by {', '.join(writers(found))}"
            faults.append(f"{found.path} {what}: a rollout did not make it so. See what is in it, and take it away")
    return faults
