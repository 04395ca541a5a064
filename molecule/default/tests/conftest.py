# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of this scenario share: an oracle that is not this collection's own code."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIO = Path(__file__).resolve().parents[1]
EDGE: dict[str, Any] = yaml.safe_load((SCENARIO / "inventory.yml").read_text(encoding="utf-8"))["all"]["children"][
    "edge"
]
DECLARED: list[dict[str, Any]] = EDGE["vars"]["redis_modules"]
HOSTS = sorted(EDGE["hosts"])
VERSIONS = {"bullseye": "6.0.", "bookworm": "7.0.", "trixie": "8.0."}
FOLDER = "/var/lib/redis/modules"
UNIT = "redis-server.service"


class Redis:
    """One host's server, seen by redis-cli, stat, systemctl and /proc."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name: str = host.backend.get_hostname()

    def sh(self, script: str) -> str:
        """Run a shell script that must succeed; return its standard output."""
        done = self.host.run(script)
        assert done.rc == 0, f"{self.name}: {script}: exit status {done.rc}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def cli(self, *words: str) -> str:
        """Run redis-cli; return its answer in its own notation, where every string is quoted."""
        return self.sh(shlex.join(["redis-cli", "--no-raw", *words])).rstrip("\n")

    def texts(self, *words: str) -> list[str]:
        """Return the strings of an answer that is a flat list."""
        return [
            ast.literal_eval('b"' + quoted + '"').decode()
            for quoted in re.findall(r'^\s*\d+\) "(.*)"$', self.cli(*words), re.MULTILINE)
        ]

    def modules(self) -> dict[str, int]:
        """Return name and version of what MODULE LIST reports, without the built-in vectorset of Redis 8."""
        pattern = r'"name"\n\s+2\) "([^"]*)"\n\s+3\) "ver"\n\s+4\) \(integer\) (\d+)'
        found = {name: int(version) for name, version in re.findall(pattern, self.cli("MODULE", "LIST"))}
        found.pop("vectorset", None)
        return found

    def config(self, name: str) -> str:
        """CONFIG GET."""
        return self.texts("CONFIG", "GET", name)[1]

    @property
    def version(self) -> str:
        """As the running server tells it."""
        return str(re.findall(r"redis_version:([\d.]+)", self.sh("redis-cli INFO server"))[0])

    @property
    def pid(self) -> int:
        """The pid that systemd knows."""
        return int(self.sh(f"systemctl show -p MainPID --value {UNIT}"))

    def as_service(self, user: str, *attempts: str) -> list[str]:
        """Try file operations, Python expressions, as a user inside the service's own mount namespace.

        Returns the name of the error of each, or "done". No program can be started in there, so one Python that was
        started outside goes in.
        """
        script = (
            "import ctypes, errno, os, pwd, shutil\n"
            f"account = pwd.getpwnam({user!r})\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            f"space = os.open('/proc/{self.pid}/ns/mnt', os.O_RDONLY)\n"
            "assert libc.setns(space, 0x20000) == 0, ctypes.get_errno()\n"
            "os.setgroups([]); os.setgid(account.pw_gid); os.setuid(account.pw_uid)\n"
            f"for attempt in {list(attempts)!r}:\n"
            "    try:\n"
            "        eval(attempt)\n"
            "        print('done')\n"
            "    except OSError as error:\n"
            "        print(errno.errorcode[error.errno])\n"
        )
        return self.sh(f"python3 -c {shlex.quote(script)}").split()

    def restart(self) -> None:
        """Restart by hand; systemctl returns when the server has loaded its data."""
        self.sh(f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}")


@dataclass
class Done:
    """How a playbook went."""

    code: int
    output: str

    def recap(self, host: str) -> dict[str, int]:
        """Return the host's counts of PLAY RECAP."""
        line = re.findall(rf"^{host}\s+: (.*)$", self.output, re.MULTILINE)[-1]
        return {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", line)}


def play(name: str, *options: str) -> Done:
    """Run one of the collection's playbooks as a user does, on molecule's hosts."""
    inventories = [SCENARIO / "inventory.yml", Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"]
    done = subprocess.run(
        [
            *("ansible-playbook", f"edgeops.redis_modules.{name}"),
            *(f"--inventory={path}" for path in inventories),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
    )
    return Done(done.returncode, done.stdout)


@pytest.fixture
def redis(host: Any) -> Redis:
    """Return the server of the host that the test runs for."""
    return Redis(host)
