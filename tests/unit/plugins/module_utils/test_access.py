# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can change a module: what is seen on a file system, and what is judged of it."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _access
from ansible_collections.edgeops.redis_modules.plugins.module_utils._access import Access, Acl

NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


BASE = ((1, 7, NOBODY), (4, 5, NOBODY), (0x20, 5, NOBODY))
WITH_USER = acl(BASE[0], (2, 6, 4242424), BASE[1], (8, 7, 4242425), (0x10, 5, NOBODY), BASE[2])


def folder(path: str, owner: str = "root", mode: int = 0o755, **more: Any) -> Access:
    group = more.pop("group", "root")
    return Access(path, "folder", owner, group, mode, **{"group_rights": mode >> 3 & 7, **more})


def file(mode: int = 0o555, **more: Any) -> Access:
    return Access("/m/a.so", "file", "redis", "redis", mode, **more)


def test_an_acl_is_read_with_its_mask() -> None:
    group, named = _access.parse_acl(WITH_USER)
    assert group == 5
    assert named == (Acl("user 4242424", 6, 4), Acl("group 4242425", 7, 5))
    assert _access.parse_acl(acl(*BASE)) == (5, ())
    assert _access.parse_acl(b"") == (None, ())


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, []),
        (file(), []),
        (file(acl=(Acl("user bob", 5, 5),)), []),
        (file(acl=(Acl("user bob", 6, 4),)), ["an ACL gives user bob rw-"]),
        (file(0o550, acl=(Acl("group ops", 4, 4),)), ["an ACL gives group ops r--"]),
        (file(hands_down=(Acl("user bob", 7, 7),)), ["a default ACL gives user bob rwx on new files"]),
        (file(flags=("immutable (chattr +i)",)), ["it is immutable (chattr +i)"]),
        (file(names=2), ["it has 2 names (hard links), and can be changed under each"]),
        (Access("/m/a.so", "link", "root", "root", 0o777, target="/b.so"), ["/m/a.so is a symbolic link to /b.so"]),
        (Access("/m/a.so", "other", "root", "root", 0o777), ["/m/a.so is no regular file"]),
    ],
)
def test_what_a_mode_does_not_tell(found: Access | None, says: list[str]) -> None:
    assert _access.differences(found) == says


def test_the_module_folder_is_roots() -> None:
    assert _access.folder_differences(folder("/m", group="redis"), "redis") == []
    assert _access.folder_differences(folder("/m", "redis", 0o2775, group="x", flags=("append-only",)), "redis") == [
        "its folder /m: owner is redis, wanted root",
        "its folder /m: group is x, wanted redis",
        "its folder /m: mode is 2775, wanted 0755",
        "its folder /m: it is append-only",
    ]
    assert _access.folder_differences(None, "redis") == []


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (folder("/a"), []),
        (folder("/a", mode=0o775), []),
        (folder("/a", mode=0o775, group="staff"), ["group staff"]),
        (folder("/a", mode=0o777), ["everybody"]),
        (folder("/a", mode=0o1777), []),
        (folder("/a", "bob", 0o1777), ["its owner bob"]),
        (folder("/a", mode=0o775, group="staff", group_rights=5, acl=(Acl("user bob", 7, 7),)), ["user bob"]),
        (folder("/a", acl=(Acl("user bob", 7, 5), Acl("user root", 7, 7))), []),
    ],
)
def test_who_can_rename_what_is_in_a_folder(found: Access, who: list[str]) -> None:
    assert _access.writers(found) == who


class Tree:
    """Folders by path."""

    def __init__(self, *folders: Access) -> None:
        self.found = {"/": folder("/"), **{found.path: found for found in folders}}

    def faults(self, path: str, user: str = "redis", data_folder: str = "/var/lib/redis") -> list[str]:
        return _access.place_faults(path, user, data_folder, (".releases",), self.found.get)


STANDARD = (folder("/var"), folder("/var/lib"), folder("/var/lib/redis", "redis", 0o750, group="redis"))


def test_the_services_own_data_folder_may_be_its_users() -> None:
    modules = folder("/var/lib/redis/modules", group="redis")
    assert Tree(*STANDARD, modules).faults("/var/lib/redis/modules/") == []
    assert Tree(*STANDARD).faults("/var/lib/redis/modules") == []
    (fault,) = Tree(*STANDARD, modules).faults("/var/lib/redis/modules", user="valkey")
    assert "/var/lib/redis can be written by its owner redis" in fault
    (fault,) = Tree(*STANDARD, modules).faults("/var/lib/redis/modules", data_folder="/data")
    assert "chown root /var/lib/redis" in fault
    loose = folder("/var/lib/redis", "redis", 0o770, group="redis")
    (fault,) = Tree(*STANDARD[:2], loose).faults("/var/lib/redis/modules")
    assert "written by group redis" in fault


def test_each_folder_above_is_asked() -> None:
    faults = Tree(folder("/srv", mode=0o777), folder("/srv/x", "bob")).faults("/srv/x/modules")
    assert ["/srv can" in faults[0], "/srv/x can" in faults[1], len(faults)] == [True, True, 2]


@pytest.mark.parametrize("path", ["/link/modules", "/link"])
def test_a_link_on_the_way_is_named(path: str) -> None:
    tree = Tree(Access("/link", "link", "root", "root", 0o777, target="/tmp"))
    assert tree.faults(path) == ["/link is a symbolic link to /tmp: set redis_modules_dir to a path without it"]


def test_what_a_rollout_keeps_in_the_folder_is_roots() -> None:
    planted = folder("/var/lib/redis/modules/.releases", "redis")
    (fault,) = Tree(*STANDARD, folder("/var/lib/redis/modules"), planted).faults("/var/lib/redis/modules")
    assert "/var/lib/redis/modules/.releases can be written by its owner redis: a rollout did not make it so" in fault
    link = Access("/var/lib/redis/modules/.releases", "link", "root", "root", 0o777, target="/etc")
    (fault,) = Tree(*STANDARD, folder("/var/lib/redis/modules"), link).faults("/var/lib/redis/modules")
    assert "is no folder" in fault


# On a real file system


def test_a_file_is_seen_with_all_its_names(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"")
    os.link(path, tmp_path / "b.so")
    os.symlink(path, tmp_path / "c.so")
    seen = _access.look(str(path))
    assert seen is not None
    assert (seen.kind, seen.names, seen.target) == ("file", 2, "")
    link = _access.look(str(tmp_path / "c.so"))
    assert link is not None
    assert (link.kind, link.target, link.names) == ("link", str(path), 1)
    assert _access.look(str(tmp_path / "none")) is None
    os.mkfifo(tmp_path / "fifo")
    pipe = _access.look(str(tmp_path / "fifo"))
    assert pipe is not None
    assert pipe.kind == "other"


def test_an_acl_is_seen_and_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"")
    try:
        os.setxattr(path, _access.ACCESS_ACL, WITH_USER)
        os.setxattr(tmp_path, _access.DEFAULT_ACL, WITH_USER)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system has no ACLs")
    seen, above = _access.look(str(path)), _access.look(str(tmp_path))
    assert seen is not None
    assert above is not None
    assert seen.acl == above.hands_down == (Acl("user 4242424", 6, 4), Acl("group 4242425", 7, 5))
    for one in (path, tmp_path):
        _access.plain(str(one))
    assert not _access.differences(_access.look(str(path)))
    assert not _access.differences(_access.look(str(tmp_path)))


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Stand for what chattr sets: not every file system of a test has it."""
    found: dict[str, int] = {}
    monkeypatch.setattr(_access, "_flags", lambda path: found.get(path, 0))
    monkeypatch.setattr(_access, "_set_flags", found.__setitem__)
    return found


def test_a_bit_of_chattr_is_taken_off_and_put_back(tmp_path: Path, bits: dict[str, int]) -> None:
    path = str(tmp_path)
    bits[path] = 0x80010
    with _access.freed(path):
        assert bits[path] == 0x80000
    assert bits[path] == 0x80010
    seen = _access.look(path)
    assert seen is not None
    assert seen.flags == ("immutable (chattr +i)",)
    _access.plain(path)
    assert bits[path] == 0x80000


def test_a_bit_that_stays_is_told_as_such(
    tmp_path: Path, bits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str, _bits: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    bits[str(tmp_path)] = 0x20
    monkeypatch.setattr(_access, "_set_flags", refuse)
    with pytest.raises(OSError, match=r"is append-only \(chattr \+a\), and that can't be taken off here"):
        _access.free(str(tmp_path))


def test_the_kernels_numbers() -> None:
    if os.uname().machine in ("x86_64", "aarch64"):
        assert (_access.GET_FLAGS, _access.SET_FLAGS) == (0x80086601, 0x40086602)
