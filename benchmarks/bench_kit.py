# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: labs and their hosts, runs of Ansible, and the page that figures go to."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import yaml
from figures import between

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
CONFIG = ROOT / "examples" / "ansible.cfg"
LABS = ROOT / "build" / "lab"
LONGEST = 1200.0
"""Seconds that one command may take. A plain playbook over 27 hosts needs some minutes."""

AT_ONCE = 8
"""How many hosts a shell script runs on at the same time."""


# ---------------------------------------------------------------- labs and hosts


def run(*words: str | Path, stdin: bytes = b"") -> bytes:
    """Run a command; end with its output where it fails."""
    done = subprocess.run([str(word) for word in words], input=stdin, capture_output=True, timeout=LONGEST, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        sys.exit(f"{' '.join(map(str, words))[:200]}: {done.returncode}\n{said}")
    return done.stdout


def up(name: str, hosts: Mapping[str, str]) -> None:
    """Bring hosts up, by name and suite, with the packages in their image; those that run are left alone."""
    words = [f"{host}={suite}" for host, suite in hosts.items()]
    run(ROOT / "lab" / "lab.py", "up", "--lab", name, "--image", "ready", *words)


def down(name: str) -> None:
    """Take a lab down, whatever there is of it."""
    run(ROOT / "lab" / "lab.py", "down", "--lab", name)


@contextmanager
def taken_down(name: str) -> Iterator[None]:
    """Take a lab down in the end, also where something failed or ended this process."""
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit("ended by a signal"))
    try:
        yield
    finally:
        down(name)


def inventory(name: str) -> Path:
    """Return the path of a lab's inventory."""
    return LABS / name / "inventory.yml"


class Host:
    """One host of a lab."""

    def __init__(self, name: str, address: str, ssh: Sequence[str]) -> None:
        self.name = name
        self.address = address
        self.words = [*ssh, f"root@{address}"]

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """Run a shell script as root; end where it fails."""
        return run(*self.words, script, stdin=stdin).decode()


def hosts_of(name: str) -> list[Host]:
    """Return the hosts of a lab, as its inventory tells."""
    content = yaml.safe_load(inventory(name).read_text(encoding="utf-8"))["all"]
    own = content["vars"]
    ssh = ["ssh", "-i", own["ansible_ssh_private_key_file"], *shlex.split(own["ansible_ssh_common_args"])]
    return [Host(host, values["ansible_host"], ssh) for host, values in content["hosts"].items()]


def on_all(hosts: Sequence[Host], script: str) -> dict[str, str]:
    """Run a shell script on many hosts; return what each said, by its name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([host.name for host in hosts], pool.map(lambda host: host.sh(script), hosts), strict=True))


# ---------------------------------------------------------------- runs of Ansible


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a run: the built artifact, this Python's own ansible-core, and examples/ansible.cfg.

    No other of Ansible's settings comes in from outside, so that all opponents have the same.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
        "ANSIBLE_HOME": str(ROOT / "build" / "ansible"),
        "ANSIBLE_CONFIG": str(CONFIG),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_NOCOWS": "1",
        **settings,
    }


def sockets_of(name: str) -> Path:
    """Return the folder of the connections that Ansible keeps to a lab's hosts."""
    return Path(yaml.safe_load(inventory(name).read_text(encoding="utf-8"))["all"]["vars"]["ansible_control_path_dir"])


def end_connections(sockets: Path) -> None:
    """End the connections that Ansible keeps by the sockets in a folder, as some time without a run would."""
    for path in sockets.iterdir() if sockets.is_dir() else ():
        subprocess.run(
            ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "lab"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )


class Played(NamedTuple):
    """How a run of Ansible went."""

    seconds: float
    output: str

    @property
    def changed(self) -> int | None:
        """How many changes its recap tells, of all hosts together; None where there is no recap."""
        found = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+) ", self.output, re.MULTILINE)
        return sum(map(int, found)) if found else None


class Running:
    """A command of Ansible's that runs, in a session of its own by which all that it starts can be found and ended."""

    def __init__(self, *words: str | Path, env: Mapping[str, str]) -> None:
        self.words = [str(word) for word in words]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
            env=dict(env),
        )

    def end(self) -> Played:
        """Wait until it ends; end it where that takes too long, and all with its output where it failed."""
        try:
            output = self.process.communicate(timeout=LONGEST)[0].decode(errors="replace")
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            print(self.process.communicate()[0].decode(errors="replace"))
            raise
        seconds = time.monotonic() - self.began
        if self.process.returncode != 0:
            sys.exit(f"{' '.join(self.words)}: {self.process.returncode}\n{output}")
        return Played(seconds, output)


# ---------------------------------------------------------------- the page


def write_page(**contents: str) -> None:
    """Print figures, and write them between the marks of their names in docs/benchmarks.md."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in contents.items():
        print(content)
        text = between(text, name.replace("_", " "), content)
    PAGE.write_text(text, encoding="utf-8")
