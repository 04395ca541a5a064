# SPDX-License-Identifier: GPL-3.0-or-later
"""The two sides of a fleet that pulls: an operator's repository, and hosts that nobody logs in to but these tests."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from fleet_kit import ROOT, Node, until

LONGEST = 900.0
"""Seconds that one run may take on a busy machine; the agent's service is the last to get the processor."""

STATE = "systemctl show -p ActiveState --value edgeops-pull.service"
COUNTERS = "awk '/eth0:/ {print $2 + $10}' /proc/net/dev"


class Site(Node):
    """A host that pulls."""

    def pull(self) -> dict[str, Any]:
        """Run the agent's service once, and return what it says. The bytes over the link are those of this run."""
        # One that the timer or an earlier test started comes first.
        script = f"""
            while [ "$({STATE})" = activating ]; do sleep 0.2; done
            before=$({COUNTERS})
            systemctl start edgeops-pull.service 2>/dev/null
            echo $(($({COUNTERS}) - before)) >&2"""
        done = subprocess.run(
            [*self.ssh, f"root@{self.address}", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=True,
        )
        return {**self.status(), "bytes": int(done.stderr.split()[-1])}

    def begin(self) -> None:
        """Start the service, and do not wait for it."""
        self.sh("systemctl start --no-block edgeops-pull.service")

    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self.sh(STATE).strip() == "activating"

    def status(self) -> dict[str, Any]:
        """Return the agent's status, as a collector reads it."""
        told: dict[str, Any] = json.loads(self.sh("cat /var/lib/edgeops-pull/status.json"))
        return told

    def versions_here(self) -> dict[str, str]:
        """Return what MODULE LIST reports, asked on the host itself: the server listens nowhere else."""
        words = self.sh("redis-cli MODULE LIST").split()
        return {words[i + 1]: words[i + 3] for i, word in enumerate(words) if word == "name" and words[i + 2] == "ver"}

    def redis_pid(self) -> int:
        """Return the server's pid by systemd."""
        return int(self.sh("systemctl show -p MainPID --value redis-server.service"))


class Central:
    """The operator's working tree, the git server and the sites."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "fleet"
        self.lab = folder / "inventory" / "lab.yml"
        made = yaml.safe_load(self.lab.read_text(encoding="utf-8"))["all"]
        self.ssh = ("ssh", "-i", made["vars"]["ansible_ssh_private_key_file"])
        self.lab_name = Path(self.ssh[-1]).parent.name
        self.ssh += tuple(shlex.split(made["vars"]["ansible_ssh_common_args"]))
        hosts = {name: host["ansible_host"] for name, host in made["hosts"].items()}
        self.hub = Node("hub", hosts["hub"], "", self.ssh)
        self.builders = [Node(name, at, "", self.ssh) for name, at in sorted(hosts.items()) if name[:7] == "builder"]
        self.sites = [Site(name, at, "", self.ssh) for name, at in sorted(hosts.items()) if name[:4] == "site"]
        self.declared = self.work / "inventory" / "group_vars" / "all" / "modules.yml"

    def git(self, *words: str) -> str:
        """Run git in the working tree."""
        environment = {**os.environ, "GIT_SSH_COMMAND": shlex.join(self.ssh)}
        done = subprocess.run(
            ["git", *words], cwd=self.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"git {words}: {done.stderr}"
        return done.stdout.strip()

    def push(self, what: str = "main") -> None:
        """Make it the server's tip, whatever that was."""
        self.git("push", "--quiet", "--force", f"root@{self.hub.address}:/srv/fleet.git", f"{what}:refs/heads/main")

    def tip(self) -> str:
        """Return the last good state."""
        return self.git("rev-parse", "main")

    def declare(self, **changes: Any) -> None:
        """Change the entry of the module."""
        told = yaml.safe_load(self.declared.read_text(encoding="utf-8"))
        told["redis_modules"][0].update(changes)
        self.declared.write_text(yaml.safe_dump(told), encoding="utf-8")

    def sign(self, message: str, key: str = "ops") -> str:
        """Commit all that changed, signed by a key or by none, and return the commit."""
        self.git("add", "--all")
        sign = [f"-S{self.folder / key}"] if key else ["--no-gpg-sign"]
        self.git("commit", "--quiet", "--allow-empty", "--message", message, *sign)
        return self.git("rev-parse", "HEAD")

    def play(self, playbook: str, *more: str) -> str:
        """Run one of the collection's playbooks on the central side."""
        done = subprocess.run(
            [
                "ansible-playbook",
                f"edgeops.redis_modules.{playbook}",
                f"--inventory={self.work}/inventory",
                f"--inventory={self.lab}",
                *more,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def build(self, **changes: Any) -> str:
        """Declare, build, sign and push another state; return its commit."""
        self.declare(**changes)
        self.play(
            "build",
            f"--extra-vars=redis_publish_repository={self.work}",
            f"--extra-vars=redis_publish_signing_key={self.folder}/ops",
        )
        self.push()
        return self.tip()

    def release(self, also: int, **changes: Any) -> str:
        """Declare, sign and push a state for which nothing has to be built; return its commit.

        It brings I(also) files of 100,000 bytes that nothing compresses, so that a fetch takes its time.
        """
        for number in range(also):
            (self.work / "files" / f"{number}.bin").write_bytes(os.urandom(100_000))
        self.declare(**changes)
        commit = self.sign("other settings")
        self.push()
        return commit

    def pull(self) -> dict[str, dict[str, Any]]:
        """Have all sites pull at the same time; return the status of each, by its name."""
        with ThreadPoolExecutor() as pool:
            return dict(zip([site.name for site in self.sites], pool.map(Site.pull, self.sites), strict=True))

    def pids(self) -> dict[str, int]:
        """Return the pid of each site's server, by the site's name."""
        return {site.name: site.redis_pid() for site in self.sites}

    def cut(self, site: Site) -> None:
        """Take a site's link to the server away. What it waits for, it goes on waiting for."""
        site.sh(f"ip route replace blackhole {self.hub.address}/32")

    def mend(self, site: Site) -> None:
        """Give it back."""
        site.sh(f"ip route del blackhole {self.hub.address}/32")

    def slow(self, kilobits: int) -> None:
        """Make the server's side a thin link; 0 for as it was."""
        self.hub.sh(
            f"tc qdisc replace dev eth0 root tbf rate {kilobits}kbit burst 16kb latency 2s"
            if kilobits
            else "tc qdisc del dev eth0 root || true"
        )

    def power_cut(self, site: Site) -> None:
        """End every process of a site at once, and boot it again on its disk."""
        lab = [str(ROOT / "lab" / "lab.py")]
        for word in ("power-cut", "start"):
            subprocess.run([*lab, word, "--lab", self.lab_name, site.name], check=True, capture_output=True)
        # The lab gives it a way to everywhere again.
        site.sh("ip route replace unreachable default")

    def wait(self, site: Site) -> None:
        """Wait until no run is under way."""
        until(lambda: not site.is_running(), f"the run on {site.name} ends", LONGEST)
        time.sleep(0.1)
