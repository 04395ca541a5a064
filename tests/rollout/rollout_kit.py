# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system tests are written with: hosts of a lab, and ansible-playbook as a user starts it.

What a host is like is asked of redis-cli, stat, systemctl and /proc, never of this collection's own modules.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
MODULES = Path(__file__).resolve().parent / "modules"
EXAMPLE = ROOT / "examples" / "sensorwindow"
CORES = {"2.14": BUILD / "venv-core-2.14", "newest": BUILD / "venv"}

UNIT = "redis-server.service"
CONF = "/etc/redis/redis.conf"
DROPIN = f"/etc/systemd/system/{UNIT}.d/50-edgeops-redis-modules.conf"
FOLDER = "/var/lib/redis/modules"
CACHE = "/var/cache/edgeops-redis-modules"
SNAPSHOT = "/var/lib/edgeops-redis-modules/before"
LOG = "/var/log/redis/redis-server.log"

CHANGE = str(Path(__file__).with_name("change.yml"))
"""The playbook for what happens on a host; I(rollout) is for what happens to a fleet."""

SUITES = {"r11": "bullseye", "r12": "bookworm", "r13": "trixie"}
LONGEST = 600.0
"""Seconds that one run of ansible-playbook may take."""

META = ("Begin it, or leave its hosts as they are", "Be done where nothing failed")
"""Tasks that need no fork."""

Entry = dict[str, Any]


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(word) for word in words],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        **options,
    )


@dataclass(frozen=True)
class Host:
    """A host of the lab."""

    name: str
    suite: str
    address: str
    ssh: tuple[str, ...]

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell script as root; return its standard output."""
        done = run(*self.ssh, f"root@{self.address}", script)
        if check:
            assert done.returncode == 0, f"{self.name}: {script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def put(self, path: str, content: bytes | str, *, owner: str = "root:root", mode: str = "0644") -> None:
        """Write a file."""
        raw = content if isinstance(content, bytes) else content.encode()
        packed = base64.b64encode(raw).decode()
        target = shlex.quote(path)
        script = (
            f"mkdir -p $(dirname {target}) && base64 -d > {target} && chown {owner} {target} && chmod {mode} {target}"
        )
        done = subprocess.run(
            [*self.ssh, f"root@{self.address}", script],
            input=packed,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def get(self, path: str) -> bytes:
        """Read a file."""
        return base64.b64decode(self.sh(f"base64 {shlex.quote(path)}"))

    def cli(self, *words: str, login: Sequence[str] = ()) -> str:
        """Run redis-cli; return its answer in its own notation, where every string is quoted."""
        return self.sh(shlex.join(["redis-cli", "--no-auth-warning", "--no-raw", *login, *words])).rstrip("\n")

    def texts(self, *words: str, login: Sequence[str] = ()) -> list[str]:
        """Return the strings of an answer that is a flat list."""
        answer = self.cli(*words, login=login)
        quoted = re.findall(r'^\s*\d+\) "(.*)"$', answer, re.MULTILINE)
        return [ast.literal_eval(f'b"{text}"').decode() for text in quoted]

    def config(self, name: str, login: Sequence[str] = ()) -> str:
        """CONFIG GET of one setting."""
        return self.texts("CONFIG", "GET", name, login=login)[1]

    def modules(self, login: Sequence[str] = ()) -> dict[str, int]:
        """Return name and version of what MODULE LIST reports, without Redis 8's built-in vectorset."""
        listing = self.cli("MODULE", "LIST", login=login)
        pattern = r'"name"\n\s+2\) "([^"]*)"\n\s+3\) "ver"\n\s+4\) \(integer\) (\d+)'
        found = {name: int(version) for name, version in re.findall(pattern, listing)}
        found.pop("vectorset", None)
        return found

    @property
    def pid(self) -> int:
        """The pid of the server, 0 where it does not run."""
        return int(self.sh(f"systemctl show -p MainPID --value {UNIT}"))

    @property
    def starts(self) -> int:
        """How often the server was started since the last reset."""
        return int(self.sh(f"grep -c 'Redis is starting' {LOG} || true"))

    def sha256(self, path: str) -> str:
        """Digest of a file; empty where there is none."""
        return self.sh(f"sha256sum {shlex.quote(path)} 2>/dev/null | cut -d' ' -f1", check=False).strip()

    def live_sha256(self, path: str) -> str:
        """Digest of the file that the running server has mapped from this path."""
        script = (
            f"range=$(grep -E 'r-xp .* {path}( \\(deleted\\))?$' /proc/{self.pid}/maps | head -n 1 | cut -d' ' -f1); "
            f"sha256sum /proc/{self.pid}/map_files/$range | cut -d' ' -f1"
        )
        return self.sh(script).strip()

    def cut_off(self, seconds: int) -> None:
        """Have the host refuse SSH; it mends itself by a timer."""
        rules = (
            "table inet cut { chain in { type filter hook input priority -300; tcp dport 22 reject with tcp reset; }; }"
        )
        timer = "systemd-run --quiet --timer-property=AccuracySec=100ms --on-active"
        # Another timer begins it: this very connection is to end first.
        self.sh(f"{timer}={seconds} nft delete table inet cut && {timer}=0.3 nft {shlex.quote(rules)}")
        until(self.is_cut_off, f"{self.name} is cut off")

    @contextmanager
    def stopping(self, step: str, after: float) -> Iterator[subprocess.Popen[str]]:
        """Yield what stops Ansible's process on this host, where it is, I(after) seconds into a step, and ends then.

        I(step) is a module and words of its arguments: each is logged as it begins.
        """
        module, _space, words = step.partition(" ")
        script = (
            f"exec 3< <(journalctl --follow --lines=0 --output=cat -t ansible-{module}); follows=$!; echo $PPID; "
            f"while read -r line <&3; do [[ $line == *{shlex.quote(words)}* ]] && break; done; "
            f"sleep {after}; kill -STOP $(pgrep -x python3); kill $follows"
        )
        command = shlex.join(["timeout", "300", "bash", "-c", script])
        watch = subprocess.Popen(
            [*self.ssh, f"root@{self.address}", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert watch.stdout is not None
        pid = int(watch.stdout.readline())
        try:
            yield watch
        finally:
            # The end of its connection does not end it; it would stop a later run's process. One that has seen the
            # step has ended, and its host may be off by now.
            if watch.poll() is None:
                self.sh(f"kill {pid}", check=False)
            watch.communicate()

    def is_cut_off(self) -> bool:
        """Whether it refuses SSH."""
        try:
            socket.create_connection((self.address, 22), timeout=5).close()
        except OSError:
            return True
        return False

    def snapshot(self) -> str:
        """Return all that a refused change must leave alone, as text."""
        return self.sh(
            f"systemctl show {UNIT} -p MainPID,ActiveState,ActiveEnterTimestampMonotonic "
            "-p NRestarts,UnitFileState,DropInPaths; "
            # By the unix time of each file, not by its name only: a file written again with the same text shows, too.
            # (A folder's own time changes with what lies in it for a moment, so it does not count.)
            f"find /etc/redis /etc/systemd/system {FOLDER} -type d -printf '%p %u:%g %m %i\\n' "
            "-o -printf '%p %y %u:%g %m %s %T@ %i\\n' 2>/dev/null | sort; "
            f"find /etc/redis {FOLDER} -type f -exec sha256sum {{}} + 2>/dev/null | sort; "
            f"ls -l --time-style=full-iso /run/{UNIT}.started-with 2>/dev/null; ls /run | grep redis-; "
            "redis-cli MODULE LIST; redis-cli CONFIG GET '*'",
            check=False,
        )

    def keep_packaged_state(self) -> None:
        """Remember what reset() goes back to."""
        self.sh(f"test -e /root/packaged.conf || cp -a {CONF} /root/packaged.conf")

    def reset(self) -> None:
        """Bring the host back to the packaged Redis without modules or data; what was built stays cached."""
        self.sh(
            f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}; "
            f"rm -rf /etc/systemd/system/{UNIT}.d /run/{UNIT}.started-with {SNAPSHOT} {LOG} "
            "/etc/redis/* /var/lib/redis/*; "
            f"cp -a /root/packaged.conf {CONF}; systemctl daemon-reload; systemctl start {UNIT}"
        )
        assert not self.modules()


@dataclass
class Done:
    """How a run of ansible-playbook went."""

    code: int
    output: str

    def recap(self, host: Host | str) -> dict[str, int]:
        """Return the host's counts of PLAY RECAP."""
        name = host if isinstance(host, str) else host.name
        found = re.findall(rf"^{re.escape(name)}\s+: (.*)$", self.output, re.MULTILINE)
        assert found, f"no recap of {name} in\n{self.output}"
        return {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", found[-1])}

    def failure(self, host: Host | str) -> str:
        """Return the message that the host failed with; of a loop, those of its items."""
        name = host if isinstance(host, str) else host.name
        # Not re.MULTILINE with a single expression: each result is one line of JSON.
        starts = (f"fatal: [{name}]: FAILED! => ", f"failed: [{name}] (")
        messages = []
        for line in self.output.splitlines():
            if line.startswith(starts):
                answer = json.loads(line[line.index("=> ") + 3 :])
                messages.append(str(answer.get("msg", "")))
        return "\n".join(messages)

    def tasks(self, host: Host | str) -> list[str]:
        """Return the tasks that the controller forked for a host, also where one was skipped."""
        name = host if isinstance(host, str) else host.name
        found: list[str] = []
        task, meta = "", False
        for line in self.output.splitlines():
            banner = re.match(r"TASK \[(.*)\] \**", line)
            if banner:
                task = banner.group(1)
                # What ends a batch or a host's part is evaluated by the controller itself.
                meta = task.endswith(META)
            included = re.match(r"included: .* for (.*)", line)
            ran = re.match(rf"(ok|changed|skipping|fatal|failed): \[{re.escape(name)}\]( => \(item)?", line)
            # The items of a loop are one task.
            again = ran and ran.group(2) and found[-1:] == [task]
            if (included and name in included.group(1).split(", ")) or (ran and not meta and not again):
                found.append(task)
        return found

    def round_trips(self, host: Host) -> list[str]:
        """Return the tasks that went to a host, of a run with -vvv: once for each module that ran there."""
        found: list[str] = []
        task = ""
        for line in self.output.splitlines():
            banner = re.match(r"TASK \[(.*)\] \**", line)
            task = banner.group(1) if banner else task
            if line.startswith(f"<{host.address}> SSH: EXEC "):
                found.append(task)
        return found

    def good(self) -> Done:
        """Assert that it went well, and return itself."""
        assert self.code == 0, self.output
        return self

    def unchanged(self) -> Done:
        """Assert that it went well and changed nothing anywhere."""
        self.good()
        counts = re.findall(r"\bchanged=(\d+)", self.output)
        assert counts, self.output
        assert set(counts) == {"0"}, self.output
        return self


class Ansible:
    """Starts ansible-playbook, with inventories of its own, on the collection as it was built."""

    def __init__(self, folder: Path, collections: Path, connection: Mapping[str, Any]) -> None:
        self.folder = folder
        self.collections = collections
        self.connection = dict(connection)
        self.number = 0
        self.playbook = "rollout"
        (folder / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")

    def environment(self, core: str) -> dict[str, str]:
        """Return the environment of a run: nothing of the machine's own Ansible settings."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "VIRTUAL_ENV"))}
        return {
            **kept,
            "PATH": f"{CORES[core] / 'bin'}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_COLLECTIONS_PATHS": str(self.collections) if core == "2.14" else "",
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / f"home-{core}"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / f"home-{core}" / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_FORKS": "10",
            # What a playbook asks for is asked once of each host, not by each of some hundred runs.
            "ANSIBLE_GATHERING": "smart",
            "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.folder / f"facts-{core}"),
            "ANSIBLE_DEVEL_WARNING": "false",
        }

    def inventory(
        self,
        hosts: Iterable[Host] | Mapping[str, Host],
        variables: Mapping[str, Any] | None = None,
        host_variables: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Path:
        """Write an inventory; a mapping gives hosts other names than their own."""
        named = hosts if isinstance(hosts, Mapping) else {host.name: host for host in hosts}
        self.number += 1
        content = {
            "all": {
                "vars": {**self.connection, **(variables or {})},
                "hosts": {
                    name: {"ansible_host": host.address, **(host_variables or {}).get(name, {})}
                    for name, host in named.items()
                },
            }
        }
        path = self.folder / f"inventory-{self.number}.yml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return path

    def start(self, playbook: str, inventory: Path, *options: str, core: str = "newest") -> subprocess.Popen[str]:
        """Start a run in a process group of its own; I(playbook) is one of the collection's, or a path."""
        if "/" not in playbook:
            playbook = f"edgeops.redis_modules.{playbook}"
        return subprocess.Popen(
            ["ansible-playbook", playbook, "-i", str(inventory), *options],
            env=self.environment(core),
            executable=str(CORES[core] / "bin" / "ansible-playbook"),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def __call__(
        self,
        hosts: Iterable[Host] | Mapping[str, Host],
        modules: list[Entry] | None = None,
        *options: str,
        playbook: str = "",
        core: str = "newest",
        host_variables: Mapping[str, Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> Done:
        """Run a playbook to its end: I(rollout), or what a test uses instead of it."""
        if modules is not None:
            variables["redis_modules"] = modules
        # All at once: waves cost time, and have tests of their own.
        variables.setdefault("redis_rollout_waves", ["100%"])
        process = self.start(
            playbook or self.playbook, self.inventory(hosts, variables, host_variables), *options, core=core
        )
        try:
            output, _nothing = process.communicate(timeout=LONGEST)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Done(process.returncode, output)

    def killed(
        self,
        host: Host,
        modules: list[Entry],
        step: str,
        after: float,
        meanwhile: Callable[[], object] | None = None,
        **variables: Any,
    ) -> str:
        """Start a rollout and kill all of it, on the host as well, I(after) seconds into a step there.

        I(step) is a module and words of its arguments, as it logs them. With I(meanwhile), that is called in the place
        of the kill on the host. The last step may be over before the kill reaches it.
        """
        with host.stopping(step, after) as watch:
            process = self.start(self.playbook, self.inventory([host], {**variables, "redis_modules": modules}))
            watchdog = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
            watchdog.start()
            try:
                until(lambda: watch.poll() is not None or process.poll() is not None, f"{step} or the end", LONGEST)
                with suppress(subprocess.TimeoutExpired):
                    watch.wait(after + 10)
                assert watch.poll() == 0, f"it ended before {step}:\n{process.communicate()[0]}"
                if meanwhile:
                    meanwhile()
            finally:
                watchdog.cancel()
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                assert process.stdout is not None
                rest = "" if process.stdout.closed else process.communicate()[0]
        if not meanwhile:
            host.sh("kill -KILL $(pgrep -x python3)", check=False)
        return rest


@dataclass
class Lab:
    """The hosts, and what runs against them."""

    name: str
    hosts: dict[str, Host]
    ansible: Ansible
    folder: Path
    clean: set[str] = field(default_factory=set)

    @classmethod
    def read(
        cls, name: str, inventory: Path, folder: Path, collections: Path, suites: Mapping[str, str] = SUITES
    ) -> Lab:
        """Take over what lab.py wrote."""
        content = yaml.safe_load(inventory.read_text(encoding="utf-8"))["all"]
        connection = content["vars"]
        ssh = (
            *("ssh", "-i", connection["ansible_ssh_private_key_file"]),
            *shlex.split(connection["ansible_ssh_common_args"]),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
            *("-o", f"ControlPath={connection['ansible_control_path_dir']}/tests-%h"),
        )
        hosts = {
            host: Host(host, suites[host], values["ansible_host"], ssh) for host, values in content["hosts"].items()
        }
        return cls(name, hosts, Ansible(folder, collections, connection), folder)

    @property
    def bridge(self) -> str:
        """The address of this machine that the hosts can reach."""
        return next(iter(self.hosts.values())).address.rsplit(".", 1)[0] + ".1"

    def reset(self, *names: str) -> list[Host]:
        """Reset hosts, at the same time; all of them where none is named."""
        chosen = [self.hosts[name] for name in names or self.hosts]
        with ThreadPoolExecutor() as pool:
            list(pool.map(Host.reset, chosen))
        return chosen


def probe(name: str = "probe", /, **more: Any) -> Entry:
    """Return an entry for modules/probe under a name of its own."""
    return {"name": name, "src": str(MODULES / "probe"), "defines": [f"PROBE_NAME={name}"], **more}


def variant(name: str, /, *defines: str, **more: Any) -> Entry:
    """Return such an entry with more defines."""
    return probe(name, **{**more, "defines": [f"PROBE_NAME={name}", *defines]})


def artifact(name: str, where: Path | str, sha256: str, /, **more: Any) -> Entry:
    """Return an entry for a built file."""
    return {"name": name, "artifact": str(where), "sha256": sha256, **more}
