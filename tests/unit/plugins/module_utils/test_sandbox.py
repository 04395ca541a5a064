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
    unit = _sandbox.TransientUnit(systemd, ["User=redis", "ExecPaths=/m", "ExecPaths=/n"])
    unit.start(["/bin/true"], "/run/redis-trial-x", "/run/redis-trial-x/log", 30)
    assert [len([w for w in call if w.startswith("ExecPaths")]) for call in systemd.calls] == [2, 0]
    assert "User=redis" in systemd.calls[1]
    assert systemd.calls[1][-2:] == ["--", "/bin/true"]
    assert "redis-trial-x.service" in systemd.calls[1]
    assert "RuntimeMaxSec=30" in systemd.calls[1]


def started(sandbox: list[str], *most_written: Any) -> list[str]:
    """Return the settings of a unit with this sandbox, in order."""
    systemd = Systemd()
    _sandbox.TransientUnit(systemd, sandbox, *most_written).start(["/bin/true", "-p"], "/f/x", "/f/x/log", 7)
    (words,) = systemd.calls
    assert words[-3:] == ["--", "/bin/true", "-p"]
    return [words[number + 1] for number, word in enumerate(words[:-3]) if word == "-p"]


OWN = [
    "ProtectSystem=strict",
    "PrivateNetwork=yes",
    "ReadWritePaths=/f/x",
    "WorkingDirectory=/f/x",
    "StandardOutput=file:/f/x/log",
    "StandardError=file:/f/x/log",
    "RuntimeMaxSec=7",
    "LimitFSIZE=33554432",
    "RemainAfterExit=yes",
    "KillMode=control-group",
    "KillSignal=SIGKILL",
]


def test_it_writes_to_its_own_folder_alone_and_reaches_no_network_whatever_the_service_may() -> None:
    narrowed = [
        "ReadWritePaths=-/var/lib/redis",
        "ReadOnlyPaths=/m",
        "ReadWriteDirectories=-/etc/redis",
        "StateDirectory=redis",
        "ProtectSystem=false",
        "PrivateNetwork=no",
        "NetworkNamespacePath=/run/netns/x",
        "JoinsNamespaceOf=y.service",
    ]
    kept = ["User=redis", "ReadWritePathsLike=x", "NoExecPaths=/", "ExecPaths=/m", "Environment=ProtectSystem=full"]
    assert started([*narrowed, *kept]) == [*kept, *OWN]


def test_what_is_told_to_hold_data_may_write_as_much() -> None:
    assert started(["LimitFSIZE=1"], None) == ["LimitFSIZE=1", *(w for w in OWN if not w.startswith("LimitFSIZE"))]
    assert "LimitFSIZE=5" in started([], 5)


def test_the_same_unit_serves_one_program_after_another() -> None:
    systemd = Systemd()
    unit = _sandbox.TransientUnit(systemd, [])
    for limit in (1, 2):
        unit.start(["/bin/true"], "/run/redis-trial-x", "/run/redis-trial-x/log", limit)
        assert f"RuntimeMaxSec={limit}" in systemd.calls.pop()
        unit.end()
        assert [call[1:] for call in systemd.calls] == [
            ["stop", "redis-trial-x.service"],
            ["reset-failed", "redis-trial-x.service"],
        ]
        systemd.calls.clear()
        unit.end()
        assert systemd.calls == []


def test_a_sandbox_that_is_refused_for_another_reason_is_told() -> None:
    def refuses(_words: list[str], **_kwargs: Any) -> tuple[int, str, str]:
        return 1, "", "Failed to parse MemoryMax= value: lots"

    with pytest.raises(_sandbox.SandboxError, match="Failed to parse MemoryMax"):
        _sandbox.TransientUnit(refuses, ["MemoryMax=lots"]).start(["/bin/true"], "/run/x", "/run/x/log", 30)


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ("ActiveState=active\nSubState=running\nExecMainCode=0\nExecMainStatus=0", ""),
        ("ActiveState=active\nSubState=exited\nExecMainCode=1\nExecMainStatus=0", "exit status 0"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=1\nExecMainStatus=1", "exit status 1"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=2\nExecMainStatus=7", "killed by signal 7"),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=3\nExecMainStatus=11", "killed by signal 11"),
        (
            "ActiveState=failed\nSubState=failed\nExecMainCode=2\nExecMainStatus=25",
            "it wrote more than 32 MiB to a file or its log",
        ),
        (
            "ActiveState=failed\nSubState=failed\nExecMainCode=3\nExecMainStatus=25",
            "it wrote more than 32 MiB to a file or its log",
        ),
        ("ActiveState=failed\nSubState=failed\nExecMainCode=1\nExecMainStatus=25", "exit status 25"),
        ("ActiveState=failed\nResult=resources", "systemd could not start it: resources"),
    ],
)
def test_how_a_program_ended(state: str, ended: str) -> None:
    assert _sandbox.TransientUnit(Systemd(state=state), []).ended() == ended


def test_nothing_is_ended_that_was_never_started() -> None:
    systemd = Systemd()
    _sandbox.TransientUnit(systemd, []).end()
    assert systemd.calls == []
