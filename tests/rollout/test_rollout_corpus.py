# SPDX-License-Identifier: GPL-3.0-or-later
"""No live server meets a module that could have been known to fail: the corpus, on all three versions.

Each case goes to its hosts in a run of ansible-playbook, some that are all named at once go together; what the hosts
are like is compared before and after. They have good modules, and data that needs these.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import Built
from corpus import ACCEPTED, BASE, BESIDE, CORPUS, HOSTS, NEVER, PREPARE, READINGS, WATCHER, Made
from rollout_kit import CHANGE, FOLDER, LOG, MODULES, Done, Entry, Host, Lab

ACLFILE = "/etc/redis/users.acl"
DATA = f"""
redis-cli SET text value
redis-cli RPUSH list a b c
redis-cli HSET hash field value
{WATCHER}
{READINGS}
"""
"""What is put into a host's server, as a shell script."""

LOOK = f"""
redis-cli INFO server | grep -E '^(run_id|process_id|tcp_port)'
redis-cli ACL LIST; redis-cli LASTSAVE; redis-cli INFO persistence | grep rdb_changes
for key in $(redis-cli --scan | sort); do echo "$key"; redis-cli --no-raw DUMP "$key"; done
stat -c '%n %y' /etc/redis
find /etc/redis /var/lib/redis /var/lib/edgeops* -type f -printf '%p %u:%g %m %s %T@ %i\\n' 2>/dev/null | sort
find /etc/redis /var/lib/redis -type f -exec sha256sum {{}} + | sort
ls /run /run/systemd/transient; find /tmp /var/tmp | grep -v /systemd-private-; ls -d /tmp/systemd-private-*redis*
systemctl list-units --all --no-legend --plain '*redis*' 'run-*'
ps -u redis -o pid,ppid,lstart,args
grep redis /proc/mounts
grep -c 'Redis is starting' {LOG}
"""
"""What no bad module may change, as a shell script: process, data, files, units, processes."""


def look(host: Host) -> str:
    """Return all that a bad module must leave alone, as text."""
    return host.snapshot() + host.sh(LOOK, check=False)


def on_all(hosts: Mapping[str, Host], what: Callable[[Host], Any]) -> dict[str, Any]:
    """Do something on hosts at the same time."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(hosts, pool.map(what, hosts.values()), strict=True))


def compile_on(host: Host, header: str, wanted: Mapping[str, Made]) -> dict[str, bytes]:
    """Make files on a host, in one go."""
    sources = io.BytesIO()
    with tarfile.open(fileobj=sources, mode="w") as tar:
        tar.add(MODULES / "corpus", arcname=".")
        member = tarfile.TarInfo("redismodule.h")
        member.size = len(header)
        tar.addfile(member, io.BytesIO(header.encode()))
    commands = "\n".join(made.command(name) for name, made in wanted.items())
    host.put("/root/corpus.tar", sources.getvalue())
    host.sh(f"set -e\ncd /root\nexec < corpus.tar\n{PREPARE}\n{commands}\ntar -cf ../corpus.tar *.so")
    packed = host.get("/root/corpus.tar")
    host.sh("rm -r /root/corpus /root/corpus.tar")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {name: tar.extractfile(f"{name}.so").read() for name in wanted}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def files(lab: Lab, header: str) -> dict[str, Built]:
    """Make the good modules and the bad ones."""
    wanted = {**BASE, **BESIDE, **{name: case.made for name, case in CORPUS.items() if case.made}}
    folder = lab.folder / "corpus"
    folder.mkdir()
    found = {}
    for compiler in HOSTS:
        there = {name: made for name, made in wanted.items() if made.host == compiler}
        content = compile_on(lab.hosts[compiler], header, there) if there else {}
        for name, raw in content.items():
            spoil = wanted[name].spoil
            path = folder / f"{name}.so"
            path.write_bytes(spoil(raw) if spoil else raw)
            found[name] = Built(name, path)
    return found


@dataclass(frozen=True)
class Outcome:
    """What a run over some cases left."""

    done: Done
    before: dict[str, str]
    after: dict[str, str]


@dataclass
class Ground:
    """Hosts with good modules and data, and the runs that were made on them."""

    lab: Lab
    files: dict[str, Built]
    selected: list[str]
    runs: dict[str, Outcome] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """Settings that the hosts have with every rollout."""
        return {"redis_server_aclfile": ACLFILE}

    @property
    def base(self) -> list[Entry]:
        """The entries of what is good."""
        return [self.files[name].entry() for name in BASE]

    def modules(self, names: Sequence[str]) -> list[Entry]:
        """Return redis_modules of cases: what is good, with a file replaced, or with the bad modules beside it."""
        entries = {good["name"]: good for good in self.base}
        for name in names:
            case = CORPUS[name]
            entries.update({other: self.files[other].entry() for other in case.beside})
            origin = self.files[name].entry() if case.made else {}
            declared = case.declared or name
            entries[declared] = {**origin, "name": declared, **case.entry}
        return list(entries.values())

    def outcome(self, name: str) -> Outcome:
        """Return how the run went that the case was in; it is made where it was not yet."""
        together = CORPUS[name].together
        run = together or name
        if run not in self.runs:
            self.runs[run] = self.roll_out(
                [other for other in self.selected if together and CORPUS[other].together == together] or [name]
            )
        return self.runs[run]

    def roll_out(self, names: list[str]) -> Outcome:
        """Roll cases out, each to its hosts, and look at the hosts before and after."""
        case = CORPUS[names[0]]
        hosts = {host: [name for name in names if host in CORPUS[name].hosts] for host in HOSTS}
        concerned = {host: self.lab.hosts[host] for host, there in hosts.items() if there}
        make, undo = (script.format(folder=FOLDER) for script in case.prepare)
        on_all(concerned, lambda host: host.sh(make))
        try:
            before = on_all(concerned, look)
            done = self.lab.ansible(
                concerned.values(),
                playbook=CHANGE,
                host_variables={host: {"redis_modules": self.modules(hosts[host])} for host in concerned},
                **{**self.variables, **case.variables},
            )
            outcome = Outcome(done, before, on_all(concerned, look))
        finally:
            on_all(concerned, lambda host: host.sh(undo))
        if outcome.after != before:
            self.lay()  # A case that got through must not make the next ones fail.
        return outcome

    def lay(self) -> None:
        """Bring the hosts to good modules, with data that needs them and a user who names a command of one."""
        hosts = {host.name: host for host in self.lab.reset()}
        acl = "user default on nopass ~* +@all\n"
        on_all(hosts, lambda host: host.put(ACLFILE, acl, owner="redis:redis", mode="0640"))
        self.lab.ansible(hosts.values(), self.base, **self.variables).good()
        on_all(hosts, lambda host: host.sh(DATA))


@pytest.fixture(scope="module")
def ground(lab: Lab, files: dict[str, Built], request: pytest.FixtureRequest) -> Ground:
    """Return hosts with good modules, and what is run on them."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    named = [spec.params["name"] for spec in chosen if spec and "name" in spec.params]
    made = Ground(lab, files, [name for name in CORPUS if name in named])
    made.lay()
    return made


@pytest.mark.parametrize("name", CORPUS)
def test_bad_module_is_refused(ground: Ground, name: str) -> None:
    """The rollout fails on each version, with a message that names the module and the cause."""
    case = CORPUS[name]
    done = ground.outcome(name).done
    for host in case.hosts:
        message = done.failure(host)
        assert message, f"{host} accepted it:\n{done.recap(host)}"
        for words in case.says:
            assert re.search(words, message), f"{host}: {words!r} is not in:\n{message}"
        for leak in ("Traceback", "AnsibleUndefined", "object has no attribute"):
            assert leak not in message


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_was_touched(ground: Ground, name: str) -> None:
    """Process, start time, data, modules and files are as before, and nothing of the trial is left behind."""
    outcome = ground.outcome(name)
    for host in CORPUS[name].hosts:
        assert outcome.after[host] == outcome.before[host]


def test_an_accepted_risk_is_taken(ground: Ground) -> None:
    """What an operator accepts by name does load, where the unit permits it."""
    wanted = {host: [name for name in ACCEPTED if name not in NEVER.get(host, ())] for host in HOSTS}
    modules = {
        host: [*ground.base, *(ground.files[name].entry(accept=[ACCEPTED[name]]) for name in names)]
        for host, names in wanted.items()
    }
    ground.lab.ansible(
        ground.lab.hosts.values(),
        host_variables={host: {"redis_modules": entries} for host, entries in modules.items()},
        redis_server_dropin_lines=["MemoryDenyWriteExecute=no"],
        **ground.variables,
    ).good()
    for host, names in wanted.items():
        assert {*BASE, *names} == set(ground.lab.hosts[host].modules())
        assert ground.lab.hosts[host].cli("keeper.get", "reading1") == '"21.5"'
