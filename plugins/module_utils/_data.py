# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a host's data to try new modules on, and the keys in it that are a module's."""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host

LONGEST = 600
"""Seconds that fetching the data may take."""

AT_ONCE = 1000
"""Keys that are asked for in one round."""

MINIMUM_FREE = 64 << 20
"""Bytes of memory that a host keeps beside a trial on its data."""

CORE_TYPES = frozenset({"none", "string", "list", "set", "zset", "hash", "stream", "vectorset"})
"""What TYPE answers for data of the server itself."""

UNDELAYED = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
"""With these a server streams its data at once and leaves its own RDB file alone."""


class DataError(Exception):
    """The data can't be had, or there is no room for a copy; the text is for the operator."""


def fetch(run: _host.Run, client: _client.Client, params: Mapping[str, Any], target: str) -> None:
    """Have the server stream its data into the file I(target), as to a replica (redis-cli --rdb).

    It forks for that; its own files stay as they are. What it is set to for the moment is set back. Raises DataError
    and ServerError.
    """
    former = {name: value for name, value in client.settings().items() if name in UNDELAYED}
    try:
        for name, value in UNDELAYED.items():
            if former.get(name) != value:
                client.set(name, value)
        code, out, err = run(
            ["timeout", str(LONGEST), "redis-cli", *login_words(params), "--rdb", target],
            environ_update={"REDISCLI_AUTH": client.password} if client.password else {},
        )
    finally:
        for name, value in former.items():
            if value != UNDELAYED[name]:
                client.set(name, value)
    if code != 0 or not is_whole(target):
        said = [line for line in (out + err).splitlines() if line.strip() and "REPLCONF" not in line]
        raise DataError(f"redis-cli --rdb gave no whole RDB: {said[-1] if said else f'exit status {code}'}")


def is_saved(info: Mapping[str, str]) -> bool:
    """Whether the RDB file of a server is what it holds, from INFO: nothing changed since it was written or read.

    With an AOF, that is what was read, and the RDB file may be older.
    """
    return info.get("rdb_changes_since_last_save") == "0" and info.get("aof_enabled", "0") == "0"


def login_words(params: Mapping[str, Any]) -> list[str]:
    """Return redis-cli's options for a login as in _client.LOGIN_ARGUMENTS; the password is no option."""
    words = ["--no-auth-warning"]
    if params.get("login_unix_socket"):
        words += ["-s", str(params["login_unix_socket"])]
    else:
        words += ["-h", str(params["login_host"]), "-p", str(params["login_port"])]
    if params.get("login_user"):
        words += ["--user", str(params["login_user"])]
    if params.get("tls") and not params.get("login_unix_socket"):
        words.append("--tls")
        for option, key in (("--cacert", "ca_certs"), ("--cert", "client_cert_file"), ("--key", "client_key_file")):
            if params.get(key):
                words += [option, str(params[key])]
        if not params.get("validate_certs", True):
            words.append("--insecure")
    return words


def is_whole(path: str) -> bool:
    """Whether a file begins as an RDB does and ends with its end mark and checksum."""
    try:
        with open(path, "rb") as stream:
            if stream.read(5) != b"REDIS":
                return False
            stream.seek(-9, os.SEEK_END)
            return stream.read(1) == b"\xff"
    except OSError:
        return False


def size(info: Mapping[str, str]) -> int:
    """Return how many bytes of memory a server's data takes, from INFO; before 4.0 has it, all that it uses."""
    return int(info.get("used_memory_dataset") or info.get("used_memory") or 0)


def room_fault(data: int, disk: int, memory: int) -> str:
    """Return why there is no room for a trial on I(data) bytes; empty where there is.

    The copy is loaded and saved once more, so its RDB lies there twice, which never takes more than in memory.
    I(disk) and I(memory) are what is free, in bytes.
    """
    if 2 * data > disk:
        return f"twice the data may take {mib(2 * data)} on disk, free are {mib(disk)}"
    if data + data // 4 + MINIMUM_FREE > memory:
        return f"a copy of the data takes {mib(data + data // 4)} of memory, free are {mib(memory)}"
    return ""


def mib(size_in_bytes: int) -> str:
    """Return a size for an operator."""
    return f"{size_in_bytes / (1 << 20):.1f} MiB"


def free_disk(folder: str) -> int:
    """Return the bytes that are free where I(folder) lies."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def free_memory(meminfo: str) -> int:
    """Return MemAvailable of /proc/meminfo in bytes; 0 where it is not told."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found.group(1)) << 10 if found else 0


def copy_file(source: str, target: str) -> int:
    """Copy an RDB file as it lies; return its age in seconds. Raises OSError."""
    shutil.copyfile(source, target)
    return max(0, int(time.time() - os.stat(source).st_mtime))


class Keys(NamedTuple):
    """How many keys of each type that is no type of the server itself; I(complete) is false where time ran out."""

    counts: dict[str, int]
    complete: bool

    def __str__(self) -> str:
        """Return them for an operator."""
        found = ", ".join(f"{count} of type {name}" for name, count in sorted(self.counts.items()))
        return (found or "none") + ("" if self.complete else " (not all keys were looked at)")


def module_keys(client: _client.Client, seconds: float) -> Keys:
    """Count the keys of modules' types in all databases, for I(seconds) at most.

    By SCAN and TYPE alone: DUMP would crash a server whose data type has no rdb_save. Raises ServerError.
    """
    counts: dict[str, int] = {}
    if client.info().get("redis_mode") == "cluster":
        # A replica of a Cluster answers only who says so.
        client.call("READONLY")
    deadline = time.monotonic() + seconds
    for names in _scanned(client, ()):
        for kind in client.many([("TYPE", name) for name in names]):
            word = str(_client.text(kind))
            if word not in CORE_TYPES:
                counts[word] = counts.get(word, 0) + 1
        if time.monotonic() > deadline:
            return Keys(counts, False)
    return Keys(counts, True)


def delete(client: _client.Client, types: Sequence[str]) -> dict[str, int]:
    """Delete every key of these types in all databases; return how many of each. Raises ServerError."""
    deleted = {}
    for kind in types:
        deleted[kind] = 0
        for names in _scanned(client, ("TYPE", kind)):
            # One by one: a server of a Cluster refuses keys of several slots in one command.
            deleted[kind] += sum(int(count) for count in client.many([("UNLINK", name) for name in names]))
    return deleted


def _scanned(client: _client.Client, words: Sequence[str]) -> Any:
    """Yield the keys of every database in lots; the connection is left in the last one."""
    numbers = [int(name[2:]) for name in client.info() if re.fullmatch(r"db\d+", name)]
    for number in sorted(numbers):
        client.call("SELECT", str(number))
        cursor = "0"
        while True:
            cursor, names = client.call("SCAN", cursor, "COUNT", str(AT_ONCE), *words)
            cursor = str(_client.text(cursor))
            if names:
                yield names
            if cursor == "0":
                break
