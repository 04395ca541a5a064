# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host itself knows of its Redis: the binary, the unit, the process and the files it has mapped."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import shutil
import stat
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _memo

Run = Callable[..., Tuple[int, str, str]]
"""AnsibleModule.run_command: (arguments) -> (return code, stdout, stderr)."""

LOG_LINES = 15


class FileState(NamedTuple):
    """What a file on disk is: owner and group by name, mode as C("0555"), digest in hex."""

    path: str
    owner: str
    group: str
    mode: str
    sha256: str
    size: int


class LiveImage(NamedTuple):
    """A file as a running process has it mapped.

    I(deleted) is true where the path names another file by now; I(sha256) is empty where the mapped file can
    no longer be read. I(file) is where it can be.
    """

    path: str
    inode: int
    deleted: bool
    sha256: str
    file: str = ""


def sha256_of(path: str) -> str:
    """Return the hex digest of a file. Raises OSError."""
    found = os.stat(path)
    # Files are replaced by rename here, so another content is another inode; and a write would show in the times.
    content = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _memo.once(("sha256", *content), lambda: _read_digest(path))


def _read_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def file_state(path: str) -> FileState | None:
    """Return what is at I(path); None where nothing is, or no regular file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileState(
        path=path,
        owner=owner_name(found.st_uid),
        group=group_name(found.st_gid),
        mode=f"{stat.S_IMODE(found.st_mode):04o}",
        sha256=sha256_of(path),
        size=found.st_size,
    )


def owner_name(uid: int) -> str:
    """Return the user's name; the number as text where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the group's name; the number as text where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def parse_version(output: str) -> str:
    """Return C("7.0.15") from what C(redis-server --version) prints; empty where it is something else."""
    match = re.search(r"\bv=(\d+(?:\.\d+)+)", output)
    return match.group(1) if match else ""


def version_tuple(version: str) -> tuple[int, ...]:
    """Return C((7, 0, 15)) from C("7.0.15"); an empty tuple from an empty string."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def server_version(run: Run, binary: str) -> str:
    """Return the version of the redis-server binary on this host; empty where there is none."""
    if not os.path.exists(binary):
        return ""
    _code, out, _err = run([binary, "--version"])
    return parse_version(out)


def unit_state(run: Run, unit: str) -> dict[str, str]:
    """Return what systemd knows of the unit; C(LoadState=not-found) where there is no such unit."""
    wanted = "LoadState,ActiveState,SubState,Result,Type,MainPID,InvocationID,NeedDaemonReload,UnitFileState"
    wanted += ",FragmentPath,DropInPaths,ProtectHome,PrivateTmp"
    code, out, err = run(["systemctl", "show", unit, "-p", wanted])
    if code != 0:
        return {"LoadState": "unknown", "error": err.strip()}
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def os_family(own: str, like: str) -> str:
    """Return the family that Ansible counts a distribution to, by ID and ID_LIKE of os-release: Debian or RedHat.

    Empty where it is another.
    """
    names = {own.lower(), *like.lower().split()}
    if names & {"debian", "ubuntu"}:
        return "Debian"
    return "RedHat" if names & {"rhel", "centos", "fedora", "rocky", "almalinux", "ol"} else ""


def systemd_version(run: Run) -> int:
    """Return the version of systemd on this host; 0 where it is not known."""
    _code, out, _err = run(["systemctl", "--version"])
    match = re.match(r"systemd (\d+)", out)
    return int(match.group(1)) if match else 0


def package_versions(run: Run, packages: Sequence[str]) -> dict[str, str] | None:
    """Return the versions of those of the packages that are installed; None where no package manager is known."""
    if shutil.which("dpkg-query"):
        form = "${Package} ${db:Status-Status} ${Version}\n"
        _code, out, _err = run(["dpkg-query", "--show", "--showformat", form, *packages])
        return dict(re.findall(r"(?m)^(\S+) installed (\S+)$", out))
    if shutil.which("rpm"):
        _code, out, _err = run(["rpm", "--query", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n", *packages])
        return dict(re.findall(r"(?m)^(\S+) (\S+)$", out))
    return None


def main_pid(unit: Mapping[str, str]) -> int:
    """Return the pid of the unit's process; 0 where none runs."""
    try:
        return int(unit.get("MainPID", "0"))
    except ValueError:
        return 0


def started_record(unit: str) -> str:
    """Return where each start of the unit leaves its start digest, as the target of a symbolic link."""
    return f"/run/{unit}.started-with"


def started_with(unit: str) -> str:
    """Return the start digest that the last start of the unit left; empty where there is none."""
    try:
        return os.readlink(started_record(unit))
    except OSError:
        return ""


def leave_started_with(unit: str, digest: str) -> None:
    """Leave another start digest, where the running server came to it without a start. Raises OSError."""
    record = started_record(unit)
    if os.path.lexists(record + ".new"):
        os.unlink(record + ".new")
    os.symlink(digest, record + ".new")
    os.rename(record + ".new", record)


def read_maps(pid: int) -> str:
    """Return /proc/PID/maps; empty where the process is gone or may not be read."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError:
        return ""


def parse_maps(text: str) -> dict[str, tuple[int, bool, str]]:
    """Return the executable file mappings of /proc/PID/maps: path to (inode, deleted, address range)."""
    images: dict[str, tuple[int, bool, str]] = {}
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/") or "x" not in fields[1]:
            continue
        path, deleted = fields[5], False
        if path.endswith(" (deleted)"):
            path, deleted = path[: -len(" (deleted)")], True
        # Where both are mapped, the file that has the name now is the one that was loaded last.
        if not deleted or path not in images:
            images[path] = (int(fields[4]), deleted, fields[0])
    return images


def live_images(pid: int, paths: Iterable[str]) -> dict[str, LiveImage]:
    """Return which of I(paths) process I(pid) runs code from, by path as given.

    The digest is read through /proc/PID/map_files, so it is that of the code that runs even where the path
    names a newer file. Empty where the process is gone or may not be read.
    """
    mapped = parse_maps(read_maps(pid))
    images = {}
    for path in paths:
        real = os.path.realpath(path)
        if real not in mapped:
            continue
        inode, deleted, addresses = mapped[real]
        file = f"/proc/{pid}/map_files/{addresses}"
        try:
            images[path] = LiveImage(path, inode, deleted, sha256_of(file), file)
        except OSError:
            images[path] = LiveImage(path, inode, deleted, "")
    return images


def mapped_modules(maps: str) -> list[str]:
    """Return the shared objects of /proc/PID/maps that are no system libraries: a server's modules, by path."""
    system = re.compile(r"/(usr/)?lib(32|64)?/(?!redis/modules/)")
    return sorted(path for path in parse_maps(maps) if path.endswith(".so") and not system.match(path))


def modules_of_process(pid: int) -> list[str]:
    """Return the paths of the modules that process I(pid) has mapped; empty where it is gone."""
    return mapped_modules(read_maps(pid))


def log_excerpt(run: Run, unit: str, logfile: str, lines: int = LOG_LINES) -> list[str]:
    """Return the last lines that the server wrote: to the journal in the last minutes, and to its log file.

    Before it has read its configuration, a server writes to the journal. What systemd itself says is left out.
    """
    command = [
        "journalctl",
        "-u",
        unit,
        "-t",
        "redis-server",
        "--since",
        "-5min",
        "-n",
        str(lines),
        "--no-pager",
        "-o",
        "cat",
    ]
    code, out, _err = run(command)
    found = [line for line in out.splitlines() if line.strip() and not line.startswith("-- ")] if code == 0 else []
    if logfile and os.path.isfile(logfile):
        with open(logfile, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 65536))
            found += stream.read().decode("utf-8", "replace").splitlines()[-4 * lines :]
    return found


def read_text(path: str) -> str:
    """Return the text of a file that says something about this host; empty where it is not there or can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def online_cpus() -> str:
    """Return the CPUs that the kernel runs on, as C(0-3); empty where it does not tell."""
    return read_text("/sys/devices/system/cpu/online").strip()


def facts_of_platform() -> dict[str, Any]:
    """Return what a binary depends on here: architecture, libc and its version, and the cores."""
    uname = os.uname()
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        libc = "unknown"
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return {
        "architecture": uname.machine,
        "libc": libc,
        "kernel": uname.release,
        "cores": cores,
        "online_cpus": online_cpus(),
    }
