# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux, as data: what its tools print, and what is to be told to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _selinux
from ansible_collections.edgeops.redis_modules.plugins.module_utils._selinux import Port

FOLDER = "/var/lib/redis/modules"
ADD = ["semanage", "fcontext", "-a", "-t", "lib_t", "/var/lib/redis/modules(/.*)?"]
CHANGE = ["semanage", "fcontext", "-m", *ADD[3:]]
RESTORE = ["restorecon", "-R", FOLDER]

CONTEXTS = """\
SELinux fcontext                                   type               Context

/srv/web pages(/.*)?                               all files          system_u:object_r:httpd_sys_content_t:s0
/var/lib/redis/modules(/.*)?                       all files          system_u:object_r:redis_var_lib_t:s0

SELinux Local fcontext Equivalence

/srv/lib = /usr/lib
"""
PORTS = """\
SELinux Port Type              Proto    Port Number

afs3_callback_port_t           tcp      7001
afs3_callback_port_t           udp      7001
http_cache_port_t              tcp      8080, 8118, 8123, 10001-10010
redis_port_t                   tcp      6379, 16379, 26379
ephemeral_port_t               tcp      32768-60999
unreserved_port_t              tcp      61000-65535, 1024-32767
"""


@pytest.mark.parametrize(
    ("by_policy", "actual", "local", "commands"),
    [
        ("redis_var_lib_t", "redis_var_lib_t", {}, [ADD, RESTORE]),
        ("redis_var_lib_t", "redis_var_lib_t", {ADD[-1]: "redis_var_lib_t"}, [CHANGE, RESTORE]),
        # The policy says so already, and the folder was made before.
        ("lib_t", "redis_var_lib_t", {}, [RESTORE]),
        ("lib_t", "", {}, [RESTORE]),
        ("lib_t", "lib_t", {}, []),
        ("textrel_shlib_t", "textrel_shlib_t", {}, []),
    ],
)
def test_the_folder_gets_its_type_once(
    by_policy: str, actual: str, local: dict[str, str], commands: list[list[str]]
) -> None:
    assert _selinux.folder_commands(FOLDER, by_policy, actual, local) == commands


def test_what_semanage_prints_is_read() -> None:
    assert _selinux.local_contexts(CONTEXTS) == {
        "/srv/web pages(/.*)?": "httpd_sys_content_t",
        "/var/lib/redis/modules(/.*)?": "redis_var_lib_t",
    }
    assert _selinux.local_contexts("") == {}
    known = _selinux.ports(PORTS)
    assert Port("redis_port_t", 16379, 16379) in known
    assert Port("http_cache_port_t", 10001, 10010) in known
    assert Port("afs3_callback_port_t", 7001, 7001) in known
    assert len(known) == 11


def test_a_folders_name_is_quoted() -> None:
    assert _selinux.pattern("/srv/redis-7.0/m+/") == r"/srv/redis-7\.0/m\+(/.*)?"


@pytest.mark.parametrize(
    ("wanted", "commands"),
    [
        ([6379, 16379], []),
        ([7000], [["-a", "7000"]]),
        ([7001], [["-m", "7001"]]),
        ([10005], [["-a", "10005"]]),
        ([0], []),
        ([7000, 6379, 7000, 17000], [["-a", "7000"], ["-a", "17000"]]),
    ],
)
def test_a_port_gets_its_type_once(wanted: list[int], commands: list[list[str]]) -> None:
    said = [["semanage", "port", verb, "-t", "redis_port_t", "-p", "tcp", port] for verb, port in commands]
    assert _selinux.port_commands(wanted, _selinux.ports(PORTS)) == said


def test_nothing_is_asked_where_selinux_is_off(commands: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_selinux, "enabled", lambda: False)
    assert _selinux.of_folder(commands, FOLDER) == _selinux.of_ports(commands, [7000]) == []
    _selinux.label_as_code(str(tmp_path))
    assert commands.ran == []


def test_it_is_on_where_the_kernel_says_so(tmp_path: Path) -> None:
    assert not _selinux.enabled(str(tmp_path))
    (tmp_path / "enforce").write_text("1")
    assert _selinux.enabled(str(tmp_path))


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_selinux, "enabled", lambda: True)


def test_a_first_and_a_second_run(on: None, commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = {FOLDER: b"system_u:object_r:redis_var_lib_t:s0\0"}
    monkeypatch.setattr(os, "getxattr", lambda path, name: context[path])
    commands.answer("matchpathcon", out="system_u:object_r:redis_var_lib_t:s0\n")
    commands.answer("semanage", "port", "-l", out=PORTS)
    assert _selinux.of_folder(commands, FOLDER) == [ADD, RESTORE]
    assert _selinux.of_ports(commands, [6379]) == []
    assert commands.ran[0] == ["matchpathcon", "-n", FOLDER + "/module.so"]

    commands.answer("matchpathcon", out="system_u:object_r:lib_t:s0\n")
    context[FOLDER] = b"system_u:object_r:lib_t:s0\0"
    assert _selinux.of_folder(commands, FOLDER) == []


def test_a_forecast_before_the_tools_are_there_says_nothing(
    on: None, commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_selinux.shutil, "which", lambda _name: None)
    assert _selinux.of_folder(commands, FOLDER, True) == _selinux.of_ports(commands, [7000], True) == []
    assert commands.ran == []


def test_a_missing_tool_is_named_with_its_package(on: None, commands: Any) -> None:
    commands.answer("semanage", code=2, err="[Errno 2] No such file or directory: b'semanage'")
    with pytest.raises(_selinux.SelinuxError, match="Is the package policycoreutils-python-utils installed"):
        _selinux.of_ports(commands, [7000])


def test_a_file_to_be_tried_gets_the_type_that_it_will_have(on: None) -> None:
    said: list[Any] = []
    _selinux.label_as_code("/m/.trial/1/a.so", lambda *words: said.append(words))
    assert said == [("/m/.trial/1/a.so", "security.selinux", b"system_u:object_r:lib_t:s0\0")]
