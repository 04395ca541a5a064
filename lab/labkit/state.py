# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab consists of, and what this machine's labs share.

The state is written before what it speaks of is made, and every step of the
teardown takes "is not there" for done. So a crash at any point leaves a state
that `down` can work from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.files import boot_id, process_start_time, write_atomically


@dataclass
class Host:
    """One host of a lab; the disk lives in hosts/NAME of the lab's folder."""

    suite: str
    kind: str
    image: str
    number: int = 0
    machine_id: str = ""
    address: str = ""
    address6: str = ""
    netns: str = ""
    mount: str = ""
    pid: int = 0
    start_time: int = 0


@dataclass
class LabState:
    """state.json."""

    name: str
    index: int
    boot: str
    bridge: str = ""
    table: str = ""
    ipv4: str = ""
    ipv6: str = ""
    sysctls_before: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)

    def is_running(self, host: str) -> bool:
        """Whether the host's recorded process is alive, and really that one."""
        record = self.hosts[host]
        if not record.pid or self.boot != boot_id():
            return False
        return process_start_time(record.pid) == record.start_time


def state_path(folder: Path) -> Path:
    """Where a lab's state is kept."""
    return folder / "state.json"


def encode_state(state: LabState) -> str:
    """The state as JSON."""
    return json.dumps(asdict(state), indent=2) + "\n"


def decode_state(text: str) -> LabState:
    """The state from JSON; raises ValueError, KeyError or TypeError for anything else."""
    data: dict[str, Any] = json.loads(text)
    hosts = {name: Host(**values) for name, values in data.pop("hosts").items()}
    return LabState(hosts=hosts, **data)


def load_state(folder: Path) -> LabState | None:
    """A lab's state; None when there is no such lab."""
    path = state_path(folder)
    try:
        return decode_state(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{path} can't be read ({error!r}); lab/README.md says how to take a lab down by hand"
        ) from error


def save_state(folder: Path, state: LabState) -> None:
    """Write a lab's state."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(state_path(folder), encode_state(state))


@dataclass
class Setting:
    """A sysctl that labs have changed."""

    before: str
    ours: str


@dataclass
class Registration:
    """A lab that holds an index of this machine."""

    folder: str
    name: str
    hosts: int = 0


@dataclass
class Registry:
    """What the labs of this machine share; void after a boot."""

    boot: str
    netns_folder_was_mounted: bool = True
    labs: dict[int, Registration] = field(default_factory=dict)
    sysctls: dict[str, Setting] = field(default_factory=dict)

    def index_of(self, folder: Path) -> int | None:
        """The index that a lab holds."""
        for index, lab in self.labs.items():
            if lab.folder == str(folder):
                return index
        return None

    def owns(self, index: int, folder: Path) -> bool:
        """Whether what carries this index may be taken down in the name of this lab.

        An index that nobody holds counts: the registry may have been lost.
        """
        holder = self.labs.get(index)
        return holder is None or holder.folder == str(folder)


def encode_registry(registry: Registry) -> str:
    """The registry as JSON."""
    return json.dumps(asdict(registry), indent=2) + "\n"


def decode_registry(text: str, boot: str) -> Registry:
    """The registry from JSON; an empty one when it is of a former boot or unreadable."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data["boot"] != boot:
            return Registry(boot)
        return Registry(
            boot,
            data["netns_folder_was_mounted"],
            {int(index): Registration(**values) for index, values in data["labs"].items()},
            {name: Setting(**values) for name, values in data["sysctls"].items()},
        )
    except (ValueError, KeyError, TypeError):
        return Registry(boot)


def wanted_sysctls(hosts: int, now: dict[str, str]) -> dict[str, str]:
    """Which settings this many hosts on the machine need, where they aren't so already."""
    wanted = {}
    if now["net.ipv4.ip_forward"] != "1":
        wanted["net.ipv4.ip_forward"] = "1"
    # Each host's systemd takes about six inotify instances, and all belong to root;
    # at the default of 128 the 21st host's PID 1 dies.
    if hosts > 12 and int(now["fs.inotify.max_user_instances"]) < 8192:
        wanted["fs.inotify.max_user_instances"] = "8192"
    return wanted
