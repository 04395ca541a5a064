# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service may do to its own code, how much of the host it gets, and who else could change a module.

One converged fleet for all; the tests come in the order in which they leave it.
"""

from __future__ import annotations

import base64
import errno
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Built
from rollout_kit import CONF, FOLDER, UNIT, Entry, Host, Lab, until

LIMITS: dict[str, Any] = {
    "redis_server_cpu_quota": "150%",
    "redis_server_cpu_affinity": "0",
    "redis_server_cpu_weight": 200,
    "redis_server_memory_max": "512M",
    "redis_server_tasks_max": 64,
    "redis_server_maxmemory": "300mb",
}
FILE = f"{FOLDER}/handed.so"

ATTACK = r"""
import ctypes, json, os, struct, sys
pid, folder, user = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
# No program could be run in there (NoExecPaths), so this one goes in.
if int(pid) and libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0x20000):
    raise OSError(ctypes.get_errno(), "setns")
os.chdir("/")
import pwd
entry = pwd.getpwnam(user)
os.setgroups([]), os.setresgid(*[entry.pw_gid] * 3), os.setresuid(*[entry.pw_uid] * 3)
data, module = "/var/lib/redis", folder + "/handed.so"
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in ((1, 7, -1 & 0xffffffff), (2, 7, 65534),
      (4, 7, -1 & 0xffffffff), (16, 7, -1 & 0xffffffff), (32, 7, -1 & 0xffffffff)))

def call(name, *args):
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), name)

def put(path, mode):
    with open(path, mode) as stream:
        stream.write(b"evil")

def moved():
    os.rename(folder, data + "/aside")
    os.rename(data + "/aside", folder)

def acl():
    os.setxattr(module, "system.posix_acl_access", ACL)
    os.removexattr(module, "system.posix_acl_access")
    os.chmod(module, 0o555)

def mode():
    os.chmod(module, 0o755)
    os.chmod(module, 0o555)

found = {}
put(data + "/evil.so", "wb")
for what, attempt in {
    "chmod": mode,
    "move the folder": moved,
    "write": lambda: put(module, "r+b"),
    "append": lambda: put(module, "ab"),
    "truncate": lambda: os.truncate(module, 0),
    "delete": lambda: os.unlink(module),
    "rename over": lambda: os.rename(data + "/evil.so", module),
    "new file": lambda: put(folder + "/new.so", "wb"),
    "new link": lambda: os.symlink(data + "/evil.so", folder + "/link.so"),
    "acl": acl,
    "bind over": lambda: call("mount", (data + "/evil.so").encode(), module.encode(), None, 4096, None),
    "unmount": lambda: call("umount2", folder.encode(), 2),
    "remount": lambda: call("mount", None, folder.encode(), None, 4096 | 32, None),
    "remove the folder": lambda: os.rmdir(folder),
}.items():
    try:
        attempt()
        found[what] = 0
    except OSError as error:
        found[what] = error.errno
os.unlink(data + "/evil.so")
print(json.dumps(found))
"""

SPOIL = r"""
import fcntl, os, struct, sys
path, *wanted = sys.argv[1:]
def acl(extra):
    user, group, other = (os.stat(path).st_mode >> at & 7 for at in (6, 3, 0))
    entries = [(1, user, 2**32 - 1), (2, extra, 65534), (4, group, 2**32 - 1)]
    entries += [(16, 7, 2**32 - 1), (32, other, 2**32 - 1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
for what in wanted if os.path.exists(path) and not os.path.islink(path) else ():
    if what in ("access", "default"):
        os.setxattr(path, f"system.posix_acl_{what}", acl(6))
    else:
        fd = os.open(path, os.O_RDONLY)
        bits = struct.unpack("=i", fcntl.ioctl(fd, 0x80086601, bytes(8))[:4])[0]
        bits = bits & ~48 | {"immutable": 16, "append": 32, "free": 0}[what]
        fcntl.ioctl(fd, 0x40086602, struct.pack("=i", bits) + bytes(4))
"""


def python(host: Host, program: str, *words: str) -> str:
    """Run a Python program on the host."""
    packed = base64.b64encode(program.encode()).decode()
    return host.sh(f"echo {packed} | base64 -d | python3 - {' '.join(words)}")


def attack(host: Host, pid: int, folder: str = FOLDER) -> dict[str, int]:
    """Try all that the service's user could think of, in the mount namespace of a process, 0 for the host's own."""
    found: dict[str, int] = json.loads(python(host, ATTACK, str(pid), folder, "redis"))
    return found


def exposure(host: Host) -> float:
    """Return the figure by which systemd sums the unit up."""
    told = host.sh(f"systemd-analyze security --no-pager {UNIT}", check=False)
    return float(re.findall(r"exposure level for \S+ ([\d.]+)", told.replace(":", ""))[0])


class Fleet:
    """Three hosts with one module, and what their packaged unit was worth."""

    def __init__(self, lab: Lab, built: dict[str, Built]) -> None:
        self.lab = lab
        self.hosts = lab.reset()
        self.modules = [built["handed"].entry()]
        self.with_new = [*self.modules, built["fetched"].entry()]
        self.packaged = {host.name: exposure(host) for host in self.hosts}
        self.report = lab.folder / "report"
        self.report.mkdir(exist_ok=True)
        lab.ansible(self.hosts, self.modules, **LIMITS, redis_verify_report_dir=str(self.report)).good()


@pytest.fixture(scope="module")
def fleet(lab: Lab, built: dict[str, Built]) -> Iterator[Fleet]:
    """Return the converged fleet, and leave nothing on it that a reset could not remove."""
    made = Fleet(lab, built)
    yield made
    for host in made.hosts:
        # Debian 13 has no chattr by itself.
        for path in (FOLDER, FILE):
            python(host, SPOIL, path, "free")
        host.sh("rm -rf /srv/* /usr/lib/redis/modules")


def test_the_unit_is_hardened_and_limited_and_the_report_says_so(fleet: Fleet) -> None:
    """No worse than Debian 12 and 13 package it, and much better than Debian 11 does; all limits are in force."""
    now = {host.name: exposure(host) for host in fleet.hosts}
    assert now["r11"] <= 1.5 < fleet.packaged["r11"]
    assert now["r12"] <= fleet.packaged["r12"]
    assert now["r13"] <= fleet.packaged["r13"]
    rows = json.loads((fleet.report / "report.json").read_text(encoding="utf-8"))
    assert {row["host"]: row["exposure"] for row in rows} == now
    assert f"r11 {now['r11']}, r12" in (fleet.report / "report.txt").read_text(encoding="utf-8")
    for host in fleet.hosts:
        names = ("CPUQuotaPerSecUSec", "CPUAffinity", "CPUWeight", "MemoryMax", "TasksMax")
        shown = host.sh(f"systemctl show {UNIT} -p {','.join(names)}").split()
        values = ("1.500000s", "0", "200", str(512 << 20), "64")
        assert sorted(shown) == sorted(f"{name}={value}" for name, value in zip(names, values, strict=True))
        assert host.sh(f"grep Cpus_allowed_list /proc/{host.pid}/status").split()[1] == "0"


def test_the_service_can_do_nothing_to_its_own_code(fleet: Fleet) -> None:
    """Its user fails in its mount namespace; outside of it, some of the same attempts succeed, so they are real."""
    for host in fleet.hosts:
        before = host.sha256(FILE), host.sh(f"stat -c '%i %a %U %Y' {FILE}")
        inside = attack(host, host.pid)
        assert {what: code for what, code in inside.items() if not code} == {}, host.name
        assert inside["chmod"] == inside["acl"] == errno.EROFS
        assert inside["move the folder"] == inside["remove the folder"] == errno.EBUSY
        assert inside["bind over"] == inside["unmount"] == inside["remount"] == errno.EPERM
        # What Redis itself can be told to write: its data, under any name.
        answer = host.cli("CONFIG", "SET", "dir", FOLDER)
        assert "OK" in answer if host.name == "r11" else "ERR" in answer
        if host.name == "r11":
            assert "ERR" in host.cli("SAVE")
            host.cli("CONFIG", "SET", "dir", "/var/lib/redis")
        assert (host.sha256(FILE), host.sh(f"stat -c '%i %a %U %Y' {FILE}")) == before
        outside = attack(host, 0)
        assert [what for what, code in outside.items() if code == 0] == ["chmod", "move the folder", "acl"]


def test_redis_works_in_it(fleet: Fleet) -> None:
    """It saves, forks, rewrites its configuration, appends, replicates, and starts again."""
    for host in fleet.hosts:
        host.sh("systemd-run -q --unit plain-redis --uid redis redis-server --port 7000 --save '' --dir /tmp")
        host.cli("CONFIG", "SET", "appendonly", "yes")
        host.cli("SET", "key", "value")
        assert host.cli("SAVE") == "OK"
        # It waits for its turn where appendonly's own child is at work still.
        assert "Background saving" in host.cli("BGSAVE", "SCHEDULE")
        until(lambda host=host: "rdb_bgsave_in_progress:0" in host.sh("redis-cli INFO persistence"), "BGSAVE")
        until(lambda host=host: "aof_rewrite_in_progress:0" in host.sh("redis-cli INFO persistence"), "AOF")
        told = host.sh("redis-cli INFO persistence")
        for status in ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"):
            assert f"{status}:ok" in told, (host.name, told)
        host.cli("CONFIG", "SET", "appendonly", "no")
        assert host.cli("CONFIG", "REWRITE") == "OK"
        assert host.sh(f"stat -c %U {CONF}").strip() == "redis"
        until(lambda host=host: "PONG" in host.sh("redis-cli -p 7000 PING", check=False), "the other server")
        host.sh("redis-cli -p 7000 SET of primary; redis-cli REPLICAOF 127.0.0.1 7000")
        until(lambda host=host: "master_link_status:up" in host.sh("redis-cli INFO replication"), "replication")
        assert host.cli("GET", "of") == '"primary"'
        host.sh("redis-cli REPLICAOF NO ONE; systemctl stop plain-redis; systemctl restart redis-server")
        assert host.modules() == {"handed": 1}


def test_each_drift_is_named_and_mended(fleet: Fleet, lab: Lab, built: dict[str, Built]) -> None:
    """Owner, setuid bit, ACL, second name and chattr of a file; owner, ACL and chattr of the folder; a link."""
    r11, r12, r13 = fleet.hosts
    pids = {host.name: host.pid for host in fleet.hosts}
    for host in (r11, r12):
        host.sh(f"ln {FILE} /var/lib/redis/second.so; chown nobody:nogroup {FILE}; chmod 4755 {FILE}")
        python(host, SPOIL, FILE, "access", "immutable")
        host.sh(f"chown redis:nogroup {FOLDER}; chmod 0775 {FOLDER}")
        python(host, SPOIL, FOLDER, "default", "append")
    r13.sh(f"mv {FILE} /root/elsewhere.so && ln -s /root/elsewhere.so {FILE}")
    python(r13, SPOIL, FOLDER, "access", "immutable")

    drift = lab.ansible(fleet.hosts, fleet.modules, playbook="verify")
    assert drift.code != 0
    for host in (r11, r12):
        (told,) = re.findall(rf"{host.name}, module handed: [^\n]*", drift.output)
        for kind in (
            "owner is nobody, wanted redis",
            "group is nogroup, wanted redis",
            "mode is 4775, wanted 0555",
            "an ACL gives user nobody rw-",
            "it is immutable (chattr +i)",
            "it has 2 names",
            f"its folder {FOLDER}: owner is redis, wanted root",
            f"its folder {FOLDER}: group is nogroup, wanted redis",
            f"its folder {FOLDER}: mode is 0775, wanted 0755",
            f"its folder {FOLDER}: a default ACL gives user nobody rw-",
            f"its folder {FOLDER}: it is append-only (chattr +a)",
        ):
            assert kind in told, (kind, told)
    (told,) = re.findall(r"r13, module handed: [^\n]*", drift.output)
    assert f"{FILE} is a symbolic link to /root/elsewhere.so" in told
    assert f"its folder {FOLDER}: it is immutable" in told
    assert "an ACL gives user nobody rw-" in told

    # On r13, something new has to be tried and placed in a folder where nobody can make a file.
    more = {"r13": {"redis_modules": fleet.with_new}}
    forecast = lab.ansible([r12], fleet.modules, "--check", "--diff", **LIMITS).good()
    assert f"-{FILE} nobody:nogroup 4775" in forecast.output
    assert "an ACL gives user nobody rw-" in forecast.output
    lab.ansible(fleet.hosts, None, host_variables=more, redis_modules=fleet.modules, **LIMITS).good()
    for host in fleet.hosts:
        assert host.sh(f"stat -c '%U:%G %a %h %F' {FILE}").strip() == "redis:redis 555 1 regular file"
        assert host.sh(f"stat -c '%U:%G %a' {FOLDER}").strip() == "root:redis 755"
        assert host.sha256(FILE) == built["handed"].sha256
    # The file was mended, not changed: who runs it needs no restart.
    assert [r11.pid, r12.pid] == [pids["r11"], pids["r12"]]
    assert r13.modules() == {"handed": 1, "fetched": 1}
    again = lab.ansible(fleet.hosts, None, host_variables=more, redis_modules=fleet.modules, **LIMITS)
    again.unchanged()


def test_a_folder_that_others_could_exchange_is_refused(fleet: Fleet, lab: Lab) -> None:
    """By who may write above it, or by a link; before anything is touched; verify finds what came about later."""
    r11, r12, r13 = fleet.hosts
    r11.sh("mkdir -p /srv/loose && chmod 0777 /srv/loose")
    r12.sh("mkdir -p /srv/real/redis && ln -s real /srv/link")
    r13.sh("mkdir -p /srv/owned/redis && chown nobody /srv/owned")
    python(r13, SPOIL, "/srv/owned/redis", "access")
    where = {
        "r11": {"redis_modules_dir": "/srv/loose/modules"},
        "r12": {"redis_modules_dir": "/srv/link/redis/modules"},
        "r13": {"redis_modules_dir": "/srv/owned/redis/modules", "redis_modules": fleet.with_new},
    }
    before = [host.snapshot() for host in fleet.hosts]
    refused = lab.ansible(fleet.hosts, None, host_variables=where, redis_modules=fleet.modules, **LIMITS)
    assert "/srv/loose can be written by everybody" in refused.failure("r11")
    assert "/srv/link is a symbolic link to /srv/real: set redis_modules_dir" in refused.failure("r12")
    assert "/srv/owned can be written by its owner nobody" in refused.failure("r13")
    assert "/srv/owned/redis can be written by user nobody" in refused.failure("r13")
    assert [host.snapshot() for host in fleet.hosts] == before

    r12.sh("chown :redis /var/lib; chmod g+w /var/lib")
    try:
        drift = lab.ansible([r12], fleet.modules, playbook="verify")
        assert "/var/lib can be written by group redis" in drift.output
        assert drift.code != 0
    finally:
        r12.sh("chown :root /var/lib; chmod g-w /var/lib")

    wrong = {**LIMITS, "redis_server_memory_max": "200M", "redis_server_cpu_quota": "80", "redis_server_tasks_max": 3}
    failed = lab.ansible([r12], fleet.modules, **wrong)
    assert "Look at the host" not in failed.output, "refused by what runs on the controller"
    for name in ("memory_max is 200M, less than", "cpu_quota must", "tasks_max must"):
        assert f"redis_server_{name}" in failed.output
    assert r12.snapshot() == before[1]


def test_the_stricter_folder(fleet: Fleet, lab: Lab) -> None:
    """Below /usr/lib, nothing but root's lies above the modules; the service's user can't move it anywhere."""
    folder = "/usr/lib/redis/modules"
    modules: list[Entry] = [*fleet.modules, {"name": "fetched", "state": "absent"}]
    lab.ansible(fleet.hosts, modules, redis_modules_dir=folder, **LIMITS).good()
    for host in fleet.hosts:
        assert host.modules() == {"handed": 1}
        assert 0 not in attack(host, host.pid, folder).values()
        outside = attack(host, 0, folder)
        assert [what for what, code in outside.items() if code == 0] == ["chmod", "acl"]
        assert host.sh(f"systemctl restart {UNIT}; systemctl is-active {UNIT}").strip() == "active"
        assert host.modules() == {"handed": 1}
