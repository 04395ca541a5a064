# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox of the service, for a throwaway server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _sandbox

UNIT = """\
[Unit]
Description=Redis
[Service]
Type=notify
ExecStart=/usr/bin/redis-server /etc/redis/redis.conf \\
    --supervised systemd
ExecStartPre=-+/bin/true
PIDFile=/run/redis/redis-server.pid
TimeoutStartSec=300
Restart=always
User=redis
RuntimeDirectory=redis
RuntimeDirectoryMode=2755
# a comment
NoExecPaths=/
ReadWritePaths=-/var/lib/redis
CapabilityBoundingSet=CAP_SETGID \\
    CAP_SETUID
[Install]
Alias=redis.service
"""


def test_what_the_service_may_do_is_taken_and_what_it_does_is_not() -> None:
    assert _sandbox.properties([UNIT]) == [
        "User=redis",
        "NoExecPaths=/",
        "ReadWritePaths=-/var/lib/redis",
        "CapabilityBoundingSet=CAP_SETGID CAP_SETUID",
    ]


def test_drop_ins_come_after_the_unit_so_that_they_can_reset_it() -> None:
    assert _sandbox.properties(["[Service]\nExecPaths=/a\n", "[Service]\nExecPaths=\nExecPaths=/b\n"]) == [
        "ExecPaths=/a",
        "ExecPaths=",
        "ExecPaths=/b",
    ]


class Systemd:
    """Answers as systemctl and systemd-run; knows no setting in I(unknown)."""

    def __init__(self, unknown: str = "", state: str = "") -> None:
        self.unknown = unknown
        self.state = state
        self.calls: list[list[str]] = []

    def __call__(self, words: list[str], **_kwargs: Any) -> tuple[int, str, str]:
        self.calls.append(words)
        if words[0] == "systemd-run" and self.unknown and any(w.startswith(self.unknown + "=") for w in words):
            return 1, "", f"Unknown assignment: {self.unknown}=/x"
        return 0, self.state, ""


def test_our_new_drop_in_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    fragment, foreign, own = (tmp_path / name for name in ("unit", "foreign.conf", "own.conf"))
    fragment.write_text("[Service]\nUser=redis\n")
    foreign.write_text("[Service]\nMemoryMax=1G\n")
    own.write_text("[Service]\nReadOnlyPaths=/old\n")
    systemd = Systemd(state=f"FragmentPath={fragment}\nDropInPaths={foreign} {own}\n")
    found = _sandbox.of_unit(systemd, "redis-server.service", str(own), "[Service]\nReadOnlyPaths=/new\n")
    assert found == ["User=redis", "MemoryMax=1G", "ReadOnlyPaths=/new"]


def test_a_host_without_the_unit_has_no_sandbox() -> None:
    assert (
        _sandbox.of_unit(Systemd(state="FragmentPath=\nDropInPaths=\n"), "redis.service", "/own", "[Service]\nA=b\n")
        == []
    )


def test_what_this_systemd_does_not_know_is_dropped_as_in_a_unit_file() -> None:
    systemd = Systemd(unknown="ExecPaths")
    unit = _sandbox.TransientUnit(systemd, ["User=redis", "ExecPaths=/m", "ExecPaths=/n"], 30)
    unit.start(["/bin/true"], "/run/redis-trial-x", "/run/redis-trial-x/log")
    assert [len([w for w in call if w.startswith("ExecPaths")]) for call in systemd.calls] == [2, 0]
    assert "User=redis" in systemd.calls[1]
    assert systemd.calls[1][-2:] == ["--", "/bin/true"]
    assert "redis-trial-x.service" in systemd.calls[1]
    assert "RuntimeMaxSec=30" in systemd.calls[1]


def test_a_sandbox_that_is_refused_for_another_reason_is_told() -> None:
    def refuses(_words: list[str], **_kwargs: Any) -> tuple[int, str, str]:
        return 1, "", "Failed to parse MemoryMax= value: lots"

    with pytest.raises(_sandbox.SandboxError, match="Failed to parse MemoryMax"):
        _sandbox.TransientUnit(refuses, ["MemoryMax=lots"], 30).start(["/bin/true"], "/run/x", "/run/x/log")


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ("ActiveState=active\nSubState=running\nExecMainCode=0\nExecMainStatus=0", ""),
        ("ActiveState=active\nSubState=exited\nExecMainCode=1\nExecMainStatus=0", "exit status 0"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=1\nExecMainStatus=1", "exit status 1"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=2\nExecMainStatus=7", "killed by signal 7"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=3\nExecMainStatus=11", "killed by signal 11"),
        ("ActiveState=failed\nResult=resources", "systemd could not start it: resources"),
    ],
)
def test_how_a_program_ended(state: str, ended: str) -> None:
    assert _sandbox.TransientUnit(Systemd(state=state), [], 30).ended() == ended


def test_nothing_is_ended_that_was_never_started() -> None:
    systemd = Systemd()
    _sandbox.TransientUnit(systemd, [], 30).end()
    assert systemd.calls == []
