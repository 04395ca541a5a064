# SPDX-License-Identifier: GPL-3.0-or-later
"""One host: its disk, its identity, its processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError
from labkit.files import mounts_under, process_start_time
from labkit.plan import LabNetwork, replace_hosts_block
from labkit.preflight import cgroup_roots, resolver_file
from labkit.run import ENVIRONMENT, run
from labkit.state import Host

NSPAWN_RUN = Path("/run/systemd/nspawn")
# nspawn ends with 133 where the host asked for a reboot (it leaves the restart to a unit file).
# A reboot empties the kernel's rules, which else would live on in the network namespace.
SUPERVISOR = """\
for cgroup in {cgroups}; do
  echo 0 >"$cgroup/cgroup.procs" || exit
done
while :; do
  nsenter --net={netns} nft flush ruleset
  "$@"
  [ $? -eq 133 ] || exit
done
"""


def disk(folder: Path, host: str) -> Path:
    """The folder that holds a host's disk and console log."""
    return folder / "hosts" / host


def console(folder: Path, host: str) -> Path:
    """What the host wrote on its console."""
    return disk(folder, host) / "console.log"


def mount_disk(folder: Path, host: str, image: str) -> Path:
    """The host's root: the image below, what the host writes on top."""
    base = disk(folder, host)
    root = base / "root"
    if mounts_under(root):
        return root
    if not Path(image).is_dir():
        raise LabError(f"{host}: its image {image} is gone; take the lab down and up again")
    for name in ("root", "upper", "work"):
        (base / name).mkdir(parents=True, exist_ok=True)
    # The folder is taken as the root's own mode, and sshd is strict about it.
    for name in ("root", "upper"):
        (base / name).chmod(0o755)
    options = f"lowerdir={image},upperdir={base}/upper,workdir={base}/work"
    run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)])
    return root


def write_identity(folder: Path, host: str, record: Host, public_key: str, hosts_block: str) -> None:
    """Name, keys, name servers and neighbours of a host, on its mounted disk."""
    root = disk(folder, host) / "root"
    _write(root / "etc/hostname", f"{host}\n")
    _write(root / "etc/machine-id", f"{record.machine_id}\n", 0o444)
    if resolver_file().exists():
        _write(root / "etc/resolv.conf", resolver_file().read_text())
    write_neighbours(folder, host, hosts_block)
    ssh_folder = root / "root/.ssh"
    ssh_folder.mkdir(mode=0o700, exist_ok=True)
    if not (ssh_folder / "authorized_keys").exists():
        _write(ssh_folder / "authorized_keys", public_key, 0o600)
    private = root / "etc/ssh/ssh_host_ed25519_key"
    if not private.exists():
        make_key(private, f"root@{host}")


def write_neighbours(folder: Path, host: str, hosts_block: str) -> None:
    """Our part of a host's /etc/hosts; also on a running host, as the mount is the same."""
    path = disk(folder, host) / "root/etc/hosts"
    old = path.read_text() if path.exists() else "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    new = replace_hosts_block(old, hosts_block)
    if new != old or not path.exists():
        _write(path, new)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file in a host's root, never through a link that leads out of it."""
    if path.is_symlink():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def make_key(path: Path, comment: str) -> None:
    """An ed25519 key pair."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def host_public_key(folder: Path, host: str) -> str:
    """The host's public key, type and key only."""
    text = (disk(folder, host) / "root/etc/ssh/ssh_host_ed25519_key.pub").read_text()
    return " ".join(text.split()[:2])


def cgroups(network: LabNetwork, host: str = "") -> list[Path]:
    """A host's (or the whole lab's) cgroup in each tree.

    Hosts that share one, as they would with nspawn's --keep-unit alone, take
    each other's processes for their own: `systemctl stop` in one host waits
    for the same service of all others.
    """
    roots = cgroup_roots(Path("/proc/mounts").read_text())
    return [Path(root, network.bridge, host) for root in roots]


def boot(folder: Path, network: LabNetwork, host: str) -> tuple[int, int]:
    """Start a host whose disk and network are there; returns its supervisor's pid and start time."""
    machine = network.machine(host)
    netns = f"/run/netns/{machine}"
    groups = cgroups(network, host)
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    script = SUPERVISOR.format(cgroups=" ".join(shlex.quote(str(g)) for g in groups), netns=netns)
    nspawn = [
        "systemd-nspawn",
        "-q",
        "--register=no",
        "--keep-unit",
        "-M",
        machine,
        f"--hostname={host}",
        "-D",
        str(disk(folder, host) / "root"),
        f"--network-namespace-path={netns}",
        "--resolv-conf=off",
        "--capability=CAP_NET_ADMIN",
        "-b",
    ]
    with console(folder, host).open("w") as log:
        # A session of its own: the host outlives this command and its terminal.
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "lab-host", *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
        )
    start_time = process_start_time(process.pid)
    # It is meant to outlive us: no "still running" warning when the object goes.
    process.returncode = 0
    return process.pid, start_time or 0


def cgroup_pids(groups: Iterable[Path]) -> set[int]:
    """The processes in these cgroups and all below."""
    pids: set[int] = set()
    for group in groups:
        # Not rglob: a cgroup may vanish while we read, and os.walk takes that as it comes.
        for folder, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                pids.update(int(word) for word in Path(folder, "cgroup.procs").read_text().split())
    return pids - {0}


def is_namespace_init(pid: int) -> bool:
    """Whether a process is PID 1 of a host."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) > 1 and ids[-1] == "1"


def kill_host(network: LabNetwork, host: str, record: Host | None, limit: float = 10.0) -> None:
    """End a host as a power cut does. Nothing outside its own cgroup and its recorded pid is touched."""
    # The supervisor first, else it could take the end for something to restart after.
    if record and record.pid and process_start_time(record.pid) == record.start_time:
        _kill(record.pid)
    groups = cgroups(network, host)
    deadline = time.monotonic() + limit
    while pids := cgroup_pids(groups):
        # With a host's PID 1 the kernel ends all its processes in one go; nspawn alone would leave them.
        for pid in sorted(pids, key=lambda p: not is_namespace_init(p)):
            _kill(pid)
        if time.monotonic() > deadline:
            raise LabError(f"{host}: processes {sorted(pids)} don't end; see `ps -p {','.join(map(str, pids))}`")
        time.sleep(0.02)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_cgroups(groups: Iterable[Path]) -> None:
    """Remove emptied cgroups, the innermost first."""
    for group in groups:
        if not group.is_dir():
            continue
        for folder, _, _ in os.walk(group, topdown=False):
            # The kernel needs a moment to let go of a process that has just died.
            for _ in range(100):
                try:
                    Path(folder).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


def unmount_disk(folder: Path) -> None:
    """Unmount everything at or under a folder."""
    for point in mounts_under(folder):
        for _ in range(50):
            result = run(["umount", point], check=False)
            if result.returncode == 0:
                break
            time.sleep(0.05)
        else:
            raise LabError(f"{point} can't be unmounted: {result.stderr.strip()}; see `fuser -vm {point}`")


def nspawn_leftovers(folder: Path, machine: str, host: str) -> list[Path]:
    """What nspawn leaves in /run for a host; to be asked while the disk is still mounted."""
    paths = [NSPAWN_RUN / "propagate" / machine, NSPAWN_RUN / "unix-export" / machine]
    root = disk(folder, host) / "root"
    if mounts_under(root):
        stat = root.stat()
        paths.append(NSPAWN_RUN / "locks" / f"inode-{stat.st_dev}:{stat.st_ino}")
    return paths


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what nspawn left in /run."""
    for path in paths:
        if path.is_dir():
            unmount_disk(path)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def ssh_answers(address: str) -> bool:
    """Whether sshd greets."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
