# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program as the service would: in a transient unit with the service's own user, sandbox and limits.

A file that loads in a shell can fail in the service (noexec mounts, a seccomp filter, memory that may not be
executable), so a trial outside the sandbox proves little.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Iterable, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

OWN_BUSINESS = re.compile(
    r"Type|Exec(Start|Stop|Reload|Condition)\w*|PIDFile|Restart\w*|Timeout\w+Sec|RuntimeDirectory\w*|RuntimeMaxSec"
    r"|RemainAfterExit|GuessMainPID|NotifyAccess|WatchdogSec|Standard(Input|Output|Error)|WorkingDirectory|Sockets"
    r"|Slice|OOMPolicy|FileDescriptorStoreMax"
)
"""Settings of the service itself, rather than of what it may do. RuntimeDirectory would be removed with the trial."""


class SandboxError(Exception):
    """The transient unit can't be made; the text is for the operator."""


def properties(unit_files: Iterable[str]) -> list[str]:
    """Return the C(Key=Value) of all C([Service]) sections that say what the service may do, in order."""
    found = []
    for text in unit_files:
        section = ""
        for raw in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            line = raw.strip()
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
                key, value = (part.strip() for part in line.split("=", 1))
                if not OWN_BUSINESS.fullmatch(key):
                    found.append(f"{key}={value}")
    return found


def of_unit(run: _host.Run, unit: str, own_dropin: str, dropin: str) -> list[str]:
    """Return the properties that the unit will have with I(dropin) in the place of the file at I(own_dropin).

    Empty where there is no such unit. Raises OSError.
    """
    state = _host.unit_state(run, unit)
    paths = [state.get("FragmentPath", ""), *state.get("DropInPaths", "").split()]
    texts = []
    for path in paths:
        if path and path != own_dropin:
            with open(path, encoding="utf-8", errors="replace") as stream:
                texts.append(stream.read())
    return properties([*texts, dropin]) if texts else []


NARROWED = re.compile(
    r"(Read(Write|Only)(Paths|Directories)|(State|Cache|Logs|Configuration)Directory|ProtectSystem|PrivateNetwork"
    r"|NetworkNamespacePath|JoinsNamespaceOf)="
)
"""What a trial may less than the service: it writes to its own folder alone, and reaches no network.

Debian's own units have ReadWriteDirectories, an older name of ReadWritePaths.

ReadOnlyPaths goes too: below what is read-only anyway, systemd drops such an entry, and the ExecPaths of the same path
with it.
"""

MOST_WRITTEN = 32 << 20
"""Bytes that a program may write to a file, its log above all, unless it is told to hold data."""


class TransientUnit:
    """One program at a time in a transient unit, in a folder of its own; I(most_written) is in bytes a file."""

    def __init__(self, run: _host.Run, sandbox: Sequence[str], most_written: int | None = MOST_WRITTEN) -> None:
        self._run = run
        self._sandbox = [setting for setting in sandbox if not NARROWED.match(setting)]
        self._most_written = most_written
        self.name = ""

    def start(self, command: Sequence[str], folder: str, log: str, limit: int) -> None:
        """Start the program; what it prints goes to I(log); systemd ends it after I(limit) seconds.

        Raises SandboxError.
        """
        self.name = os.path.basename(folder) + ".service"
        own = [
            # A module that writes or talks elsewhere must not meet the live server's files and port.
            "ProtectSystem=strict",
            "PrivateNetwork=yes",
            f"ReadWritePaths={folder}",
            f"WorkingDirectory={folder}",
            f"StandardOutput=file:{log}",
            f"StandardError=file:{log}",
            f"RuntimeMaxSec={limit}",
            *([f"LimitFSIZE={self._most_written}"] if self._most_written else []),
            "RemainAfterExit=yes",
            "KillMode=control-group",
            # Nothing it holds is worth a clean shutdown.
            "KillSignal=SIGKILL",
        ]
        while True:
            words = [word for setting in self._sandbox + own for word in ("-p", setting)]
            code, out, err = self._run(["systemd-run", "--quiet", "--unit", self.name, *words, "--", *command])
            if code == 0:
                return
            if not self._drop_unknown(err):
                raise SandboxError(f"systemd-run refuses the sandbox of the service: {(err or out).strip()}")

    def _drop_unknown(self, said: str) -> bool:
        """Drop what this systemd does not know, as it does in a unit's file; return whether there was something."""
        unknown = re.search(r"Unknown assignment: ([A-Za-z]+)", said)
        before = len(self._sandbox)
        if unknown:
            self._sandbox = [s for s in self._sandbox if not s.startswith(unknown.group(1) + "=")]
        return len(self._sandbox) < before

    def ended(self) -> str:
        """Return how the program ended; empty while it runs."""
        wanted = "ActiveState,SubState,ExecMainCode,ExecMainStatus,Result"
        _code, out, _err = self._run(["systemctl", "show", self.name, "-p", wanted])
        state = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if state.get("ActiveState") in ("active", "activating") and state.get("SubState") not in ("exited", "dead"):
            return ""
        return ending(state)

    def end(self) -> None:
        """End the program, whatever it does."""
        if self.name:
            self._run(["systemctl", "stop", self.name])
            self._run(["systemctl", "reset-failed", self.name])
            self.name = ""


def ending(state: dict[str, str]) -> str:
    """Return how a unit's program ended, from C(systemctl show): by a signal, with a status, or never well begun."""
    code, status = state.get("ExecMainCode", "0"), state.get("ExecMainStatus", "0")
    if code in ("2", "3") and status == str(int(signal.SIGXFSZ)):
        return f"it wrote more than {MOST_WRITTEN >> 20} MiB to a file or its log"
    if code in ("2", "3"):
        return f"killed by signal {status}"
    if code == "1":
        return f"exit status {status}"
    return f"systemd could not start it: {state.get('Result', 'unknown')}"
