# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one rollout at a time change a server: a lock on its host, that says who holds it and since when.

The lock is a file, so it survives the reboot of its host and the death of its holder. Whether a holder is dead can be
told where it ran, on its controller, and nowhere else: by its pid, and by when that process started, as a pid comes
again. Where nobody can tell, the lock counts as held.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import socket
import tempfile
import time
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _places, _release

PATH = _places.LOCK
ATTEMPTS = 10
"""How often to look again where another run changes the lock at the same moment."""

SITE_VARIABLE = "EDGEOPS_PULL_SITE"
"""What the edge agent, which is its host's own controller, sets in the environment of ansible-playbook."""

INITIAL_NAMESPACE = "pid:[4026531836]"
"""How each kernel names the processes' namespace that no container is in."""


class LockError(Exception):
    """The lock is held by I(found), or can't be used; the text is for the operator."""

    def __init__(self, message: str, found: Holder | None = None) -> None:
        super().__init__(message)
        self.found = found


class Holder(NamedTuple):
    """Whose a lock is.

    I(run) is the id of a run, I(who) is for people, I(controller) and I(pid) say where its ansible-playbook runs, and
    I(started) when that process started: see process_started(). I(since) is in seconds since 1970, by the clock of the
    host. All but that is empty where the file can't be read any more.
    """

    run: str
    who: str
    controller: str
    pid: int
    started: str
    since: int

    def as_dict(self) -> dict[str, Any]:
        """For a module's result, with the time as ISO 8601 in UTC."""
        return {**self._asdict(), "since": _places.iso(self.since)}


class Taken(NamedTuple):
    """How a lock was got: I(found) is who held it until then, None where nobody did."""

    found: Holder | None
    taken_over: bool


def ago(seconds: int) -> str:
    """Return how long ago something was, in the largest unit of which there is more than one."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    # A clock that was set back makes it less than nothing.
    return f"{max(seconds, 0)} seconds ago"


def parse(text: str, since: int) -> Holder:
    """Return whose a lock file with this text is; I(since) is the file's own time, for one that a power cut broke."""
    try:
        found = json.loads(text)
        texts = {key: str(found[key]) for key in ("run", "who", "controller", "started")}
        if not texts["run"]:
            raise ValueError("no run")
        return Holder(pid=int(found["pid"]), since=int(found["since"]), **texts)
    except (ValueError, KeyError, TypeError):
        return Holder("", "", "", 0, "", since)


def may_take(found: Holder, run: str, gone: Sequence[str], take_over: bool) -> bool:
    """Whether I(run) may have the lock of another, or what is left of one."""
    return take_over or bool(found.run and found.run in gone) or found.run == run


def refusal(found: Holder, path: str, now: int) -> str:
    """Return why the lock can't be had, and what to do."""
    if found.run:
        holder = f"{found.who} (process {found.pid} there)"
        wait = "Wait until that rollout has ended. Should it be dead"
    else:
        holder = f"nobody knows whom, as {path} can't be read"
        wait = "Look whether a rollout of this host runs. Should there be none"
    return (
        f"this host's lock is held by {holder}, since {_places.iso(found.since)}, {ago(now - found.since)}. {wait}, "
        "run again with -e redis_rollout_take_over_lock=true, which takes the lock from whoever holds it"
    )


# ---------------------------------------------------------------- the file


def read(path: str) -> Holder | None:
    """Return who holds the lock; None where nobody does. Raises LockError."""
    with _opened(path) as descriptor:
        return None if descriptor is None else _holder(descriptor)


def hold(path: str, owner: Mapping[str, Any], gone: Sequence[str], take_over: bool, check: bool = False) -> Taken:
    """Have the lock for the run of I(owner), and return how it was got. Raises LockError where another holds it.

    I(gone) are ids of runs that are known to be dead. With I(check), nothing is written.
    """
    for _attempt in range(ATTEMPTS):
        now = int(time.time())
        mine = Holder(**{**owner, "since": now})
        with _opened(path) as descriptor:
            found = None if descriptor is None else _holder(descriptor)
            if found and found.run == mine.run:
                return Taken(found, False)
            if found and not may_take(found, mine.run, gone, take_over):
                raise LockError(refusal(found, path, now), found)
            if check or _written(path, mine, descriptor):
                return Taken(found, found is not None)
    raise LockError(f"{path} changes again and again; other rollouts of this host begin and end. Run again")


def release(path: str, run: str) -> Holder | None:
    """Give the lock back where it is that of I(run); another's stays. Return who held it. Raises LockError."""
    with _opened(path) as descriptor:
        found = None if descriptor is None else _holder(descriptor)
        if descriptor is not None and found and found.run == run:
            with _speaking(path), _alone(descriptor):
                if _is_at(path, descriptor):
                    os.unlink(path)
                    for temporary in _release.temporaries(path):
                        _release.remove(temporary)
                    _release.sync_folder(os.path.dirname(path))
        return found


def _written(path: str, mine: Holder, former: int | None) -> bool:
    """Write the lock where there is none, or over the open file I(former); whether nobody else was faster."""
    content = json.dumps(mine._asdict()).encode()
    with _speaking(path):
        if former is None:
            return _created(path, content)
        # Of two that take over the same file, the second finds another in its place.
        with _alone(former):
            if not _is_at(path, former):
                return False
            temporary = _temporary(path, content)
            try:
                os.rename(temporary, path)
            finally:
                _release.remove(temporary)
            _release.sync_folder(os.path.dirname(path))
            return True


def _created(path: str, content: bytes) -> bool:
    """Give the lock its name, whole; whether nobody else did so before."""
    _release.make_folders(os.path.dirname(path))
    temporary = _temporary(path, content)
    try:
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        # The second: a run that ended has cleared away what it found beside its lock.
        return False
    finally:
        _release.remove(temporary)
    _release.sync_folder(os.path.dirname(path))
    return True


def _temporary(path: str, content: bytes) -> str:
    """Return a file with this content beside I(path), on the disk, readable by its owner alone."""
    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".new", dir=folder)
    with os.fdopen(descriptor, "wb") as writer:
        writer.write(content)
        writer.flush()
        os.fsync(writer.fileno())
    return temporary


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """Open the lock file, to be read; None where there is none. Raises LockError."""
    with _speaking(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            descriptor = -1
    try:
        yield None if descriptor < 0 else descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _holder(descriptor: int) -> Holder:
    """Return whose an open lock file is; one that the disk no longer gives is nobody's."""
    try:
        text = os.pread(descriptor, 1 << 16, 0).decode("utf-8", "replace")
    except OSError:
        text = ""
    return parse(text, int(os.fstat(descriptor).st_mtime))


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Keep other runs from changing the lock for a moment; the kernel ends it with the process."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _speaking(path: str) -> Iterator[None]:
    """Turn what the system says into a LockError."""
    try:
        yield
    except OSError as error:
        raise LockError(f"the lock {path} can't be used: {error.strerror or error}") from error


# ---------------------------------------------------------------- the controller


def process_started(pid: int) -> str:
    """Return when a process started, in ticks since the boot; empty where it is over or this can't be known.

    This and the pid name a process, as a pid comes again.
    """
    # The second field is the program's name, in parentheses and with whatever characters in it.
    fields = _host.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def controller_id() -> str:
    """Return what tells this machine from others, and the containers on it from each other.

    Machine ids alone are too little: clones of a machine have the same, and so have containers of an image. It is a
    digest, as machine ids are not for others to see.

    An edge agent runs on its own host and one at a time, so it knows its own runs again without the container. A site
    that is a container has another one after each boot, and nobody there to take a lock over.
    """
    try:
        namespace = os.readlink("/proc/self/ns/pid").replace(INITIAL_NAMESPACE, "")
    except OSError:
        namespace = ""
    site = os.environ.get(SITE_VARIABLE, "")
    if site:
        namespace = f"the agent of {site}"
    known = [_host.read_text("/etc/machine-id").strip(), socket.gethostname(), namespace]
    return hashlib.sha256("\n".join(["edgeops.redis_modules", *known]).encode()).hexdigest()[:32]


def run_owner(pid: int, who: str = "") -> dict[str, Any]:
    """Return what a lock says of its owner, for the ansible-playbook with this pid on this machine.

    I(who) is for people; the user who started it and the machine where it is empty.
    """
    controller, started = controller_id(), process_started(pid)
    if not who:
        try:
            user = os.environ.get("SUDO_USER") or getpass.getuser()
        except (KeyError, OSError):
            # A container may run as a number that has no name.
            user = str(os.getuid())
        who = f"{user}@{socket.gethostname()}"
    run = run_id(controller, pid, started)
    return {"run": run, "who": who, "controller": controller, "pid": pid, "started": started}


def run_id(controller: str, pid: int, started: str) -> str:
    """Return the id of a run: the same in all its processes, and of no other run."""
    return f"{controller}-{pid}-{started or 0}"


def runs(pid: int, started: str) -> bool:
    """Whether a process of this machine still runs, and is the one that was meant."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It is another user's.
        pass
    if not started or not os.path.exists(f"/proc/{pid}/stat"):
        return True
    return process_started(pid) == started


def dead_runs(holders: Sequence[Mapping[str, Any]], controller: str) -> list[str]:
    """Return the ids of those runs that were started on this I(controller) and no longer run, each once.

    I(holders) are as Holder.as_dict() tells them; empty ones are left out.
    """
    dead = []
    for holder in holders:
        if not holder or holder["controller"] != controller:
            continue
        run, pid, started = holder["run"], int(holder["pid"]), holder["started"]
        # What a host tells must fit together: one that lies can't have the lock of a run that lives taken elsewhere.
        if run == run_id(controller, pid, started) and run not in dead and not runs(pid, started):
            dead.append(run)
    return dead
