# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the system tests: one lab of three hosts for all of them.

The lab is taken down at the end, also after a failure or a signal. While writing tests, ROLLOUT_KEEP_LAB=1 leaves it
up and the next run takes it over; ROLLOUT_LAB=NAME (default: rollout) lets two sessions run side by side.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from rollout_kit import CACHE, CHANGE, MODULES, ROOT, SUITES, Entry, Host, Lab, artifact, probe, run

LAB = os.environ.get("ROLLOUT_LAB", "rollout")


TOOLCHAIN = """
- hosts: all
  become: true
  gather_facts: true
  gather_subset: ["!all", "!min", distribution, pkg_mgr]
  roles: [edgeops.redis_modules.redis_toolchain]
"""


def end_by_signal(signum: int, _frame: FrameType | None) -> None:
    """Let fixtures clean up, as after Ctrl-C."""
    raise KeyboardInterrupt(f"signal {signum}")


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """Hold the lab against another session: two on the same hosts would break each other's tests."""
    with (ROOT / "build" / f".lab-{LAB}.lock").open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit(f"another session runs on the lab {LAB}; ROLLOUT_LAB=NAME uses another", returncode=1)
        yield


@pytest.fixture(scope="session")
def lab(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Build the artifact, boot the hosts, and end them whatever happens."""
    folder = tmp_path_factory.mktemp("rollout")
    # A copy of the built and installed collection: what changes in the checkout meanwhile does not count.
    collections = folder / "collections"
    subprocess.run([ROOT / "tools" / "collection", "--copy", collections], stdin=subprocess.DEVNULL, check=True)
    script = ROOT / "lab" / "lab.py"
    former = signal.signal(signal.SIGTERM, end_by_signal)
    try:
        up = run(script, "up", "--lab", LAB, "--image", "ready", *(f"{host}={suite}" for host, suite in SUITES.items()))
        assert up.returncode == 0, up.stdout + up.stderr
        made = Lab.read(LAB, ROOT / "build" / "lab" / LAB / "inventory.yml", folder, collections)
        for host in made.hosts.values():
            host.keep_packaged_state()
        toolchain = folder / "toolchain.yml"
        toolchain.write_text(TOOLCHAIN, encoding="utf-8")
        made.ansible(made.hosts.values(), [probe()], playbook=str(toolchain)).good()
        yield made
    finally:
        if not os.environ.get("ROLLOUT_KEEP_LAB"):
            down = run(script, "down", "--lab", LAB)
            print(down.stdout + down.stderr)
        signal.signal(signal.SIGTERM, former)


@pytest.fixture
def roles_alone(lab: Lab) -> Iterator[None]:
    """Have a test start the roles alone, without the playbook around them: it is about what happens on a host."""
    lab.ansible.playbook = CHANGE
    yield
    lab.ansible.playbook = "rollout"


@pytest.fixture
def r11(lab: Lab) -> Host:
    """Return a host with Redis 6.0, as packaged."""
    return lab.reset("r11")[0]


@pytest.fixture
def r12(lab: Lab) -> Host:
    """Return a host with Redis 7.0, as packaged."""
    return lab.reset("r12")[0]


@pytest.fixture
def r13(lab: Lab) -> Host:
    """Return a host with Redis 8.0, as packaged."""
    return lab.reset("r13")[0]


@pytest.fixture
def fleet(lab: Lab) -> list[Host]:
    """Return all three, as packaged."""
    return lab.reset()


@dataclass(frozen=True)
class Built:
    """A built module on the controller."""

    name: str
    path: Path

    @property
    def sha256(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def entry(self, **more: object) -> Entry:
        """Return an entry of redis_modules that hands it over."""
        return artifact(self.name, self.path, self.sha256, **more)


@pytest.fixture(scope="session")
def built(lab: Lab) -> dict[str, Built]:
    """Modules built on the oldest host, as artifacts that load on all three."""
    (host,) = lab.reset("r11")
    names = ("handed", "fetched")
    lab.ansible([host], [probe(name) for name in names]).good()
    folder = lab.folder / "artifacts"
    folder.mkdir()
    found = {}
    for name in names:
        (folder / f"{name}.so").write_bytes(
            host.get(host.sh(f"ls {CACHE}/artifacts/{name}/*/{name}.so").splitlines()[0])
        )
        found[name] = Built(name, folder / f"{name}.so")
    return found


@pytest.fixture(scope="session")
def header(lab: Lab, built: dict[str, Built]) -> str:
    """Return the redismodule.h of the oldest server, as the rollout got it."""
    assert built
    return lab.hosts["r11"].get(f"{CACHE}/headers/6.0.16/redismodule.h").decode()


@pytest.fixture(scope="session")
def probes(lab: Lab, header: str) -> Callable[..., Built]:
    """Return what compiles modules/probe on the oldest host, with the text that it tells and other defines."""
    host = lab.hosts["r11"]
    host.put("/root/probes/redismodule.h", header)
    host.put("/root/probes/probe.c", (MODULES / "probe" / "probe.c").read_bytes())
    found: dict[tuple[str, ...], Built] = {}

    def compiled(text: str, *defines: str) -> Built:
        if (text, *defines) not in found:
            flags = shlex.join(f"-D{define}" for define in (f"PROBE_TEXT={text}", *defines))
            host.sh(f"cd /root/probes && gcc -shared -fPIC -O2 {flags} -o probe.so probe.c")
            path = lab.folder / "probes" / str(len(found)) / "probe.so"
            path.parent.mkdir(parents=True)
            path.write_bytes(host.get("/root/probes/probe.so"))
            found[text, *defines] = Built("probe", path)
        return found[text, *defines]

    return compiled
