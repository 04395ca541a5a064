# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions: what differs between what is wanted and what is there, and what has to be done about it.

Pure functions over observed and wanted state. They touch nothing.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._host import FileState, LiveImage

LOADED = "loaded"
RESTART_PENDING = "restart-pending"
DRIFTED = "drifted"
MISSING = "missing"
BROKEN = "broken"
ABSENT = "absent"
UNDECLARED = "undeclared"

GOOD = frozenset({LOADED, ABSENT})
"""Verdicts that need nothing done."""


class Wanted(NamedTuple):
    """One module as a host should have it. I(sha256), I(owner) and the like are empty where nothing is asked."""

    name: str
    state: str
    path: str
    args: Sequence[str]
    version: int | None
    sha256: str = ""
    owner: str = ""
    group: str = ""
    mode: str = ""


WANTED_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path", "required": True},
    "args": {"type": "list", "elements": "str", "default": []},
    "version": {"type": "int"},
    "sha256": {"type": "str"},
}
"""A module as those take it that compare it with what runs."""


class Verdict(NamedTuple):
    """The verdict on one module of one host, with what was found."""

    name: str
    verdict: str
    differences: list[str]
    version: int | None
    path: str
    sha256: str
    live_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """For a module's result."""
        return dict(self._asdict())


def judge(
    wanted: Wanted,
    loaded: LoadedModule | None,
    on_disk: FileState | None,
    live: LiveImage | None,
    server_runs: bool = True,
    access: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on one declared module.

    I(loaded) is its line of MODULE LIST, I(on_disk) what lies at the wanted path, I(live) what the server has
    mapped from there; each None where there is none. I(access) is what was found wrong with who can change it.
    """
    differences: list[str] = []
    if wanted.state == "absent":
        return _judge_absent(wanted, loaded, on_disk, live, server_runs)
    if on_disk is None:
        differences.append(f"no file at {wanted.path}")
    else:
        differences += file_differences(wanted, on_disk)
    differences += access
    drifted = bool(differences)
    stale = live is not None and on_disk is not None and is_stale(live, on_disk)
    if not server_runs:
        verdict = BROKEN
        differences.insert(0, "the server does not run")
    elif loaded is None:
        verdict = MISSING
        differences.insert(0, "MODULE LIST does not report it")
    else:
        running = running_differences(wanted, loaded)
        differences += running
        if stale:
            differences.append("the running server still has an older file mapped; a restart loads the new one")
        verdict = RESTART_PENDING if stale and not drifted and not running else DRIFTED if differences else LOADED
    return _verdict(wanted, verdict, differences, loaded, on_disk, live)


def is_stale(live: LiveImage, on_disk: FileState) -> bool:
    """Whether the process runs other code than the file on disk holds; its inode decides where it can't be read."""
    return live.sha256 != on_disk.sha256 if live.sha256 else live.deleted


def _judge_absent(
    wanted: Wanted,
    loaded: LoadedModule | None,
    on_disk: FileState | None,
    live: LiveImage | None,
    server_runs: bool,
) -> Verdict:
    differences = []
    if loaded is not None:
        differences.append("MODULE LIST still reports it")
    if on_disk is not None:
        differences.append(f"its file is still at {wanted.path}")
    verdict = (
        ABSENT
        if not differences
        else RESTART_PENDING
        if loaded is not None and on_disk is None and server_runs
        else DRIFTED
    )
    return _verdict(wanted, verdict, differences, loaded, on_disk, live)


def _verdict(
    wanted: Wanted,
    verdict: str,
    differences: list[str],
    loaded: LoadedModule | None,
    on_disk: FileState | None,
    live: LiveImage | None,
) -> Verdict:
    path = loaded.path if loaded and loaded.path is not None else wanted.path
    return Verdict(
        name=wanted.name,
        verdict=verdict,
        differences=differences,
        version=loaded.version if loaded else None,
        path=path,
        sha256=on_disk.sha256 if on_disk else "",
        live_sha256=live.sha256 if live else "",
    )


def file_differences(wanted: Wanted, found: FileState) -> list[str]:
    """Return how the file differs from what is wanted; what is not asked for is not compared."""
    differences = []
    for label, want, have in (
        ("owner", wanted.owner, found.owner),
        ("group", wanted.group, found.group),
        ("mode", wanted.mode.zfill(4) if wanted.mode else "", found.mode),
        ("sha256", wanted.sha256, found.sha256),
    ):
        if want and want != have:
            differences.append(f"{label} is {have}, wanted {want}")
    return differences


def running_differences(wanted: Wanted, loaded: LoadedModule) -> list[str]:
    """Return how the loaded module differs. Before Redis 7.0 the server tells neither path nor arguments."""
    differences = []
    if wanted.version is not None and loaded.version != wanted.version:
        differences.append(f"version is {loaded.version}, wanted {wanted.version}")
    if loaded.path is not None and loaded.path != wanted.path:
        differences.append(f"loaded from {loaded.path}, wanted {wanted.path}")
    if loaded.args is not None and list(loaded.args) != list(wanted.args):
        differences.append(f"arguments are {list(loaded.args)}, wanted {list(wanted.args)}")
    return differences


def undeclared(loaded: Sequence[LoadedModule], declared_names: Sequence[str]) -> list[LoadedModule]:
    """Return the modules that run and that nobody declared; the server's built-in ones are no strangers."""
    return [module for module in loaded if module.name not in declared_names and not module.built_in]


def changed_modules(
    loaded: Sequence[LoadedModule],
    images: Mapping[str, LiveImage],
    modules: Sequence[Mapping[str, Any]],
    digests: Mapping[str, str],
) -> list[str]:
    """Return the names of declared modules that a running server has not, or not with that file or those arguments.

    I(images) are the files that it has mapped and I(digests) those of the files to come, both by the declared path.
    """
    running = {module.name: module for module in loaded}
    names = []
    for entry in modules:
        seen, image = running.get(entry["name"]), images.get(entry["path"])
        if (
            seen is None
            or image is None
            or image.sha256 != digests[entry["path"]]
            or (seen.args is not None and list(seen.args) != list(entry.get("args") or []))
        ):
            names.append(entry["name"])
    return names


class SettingChange(NamedTuple):
    """One setting of a running server that is not as its configuration says."""

    name: str
    now: str
    wanted: str


def setting_changes(
    running: Mapping[str, str], tried: Mapping[str, str], directives: Sequence[_conf.Directive]
) -> list[SettingChange]:
    """Return which settings of the running server differ from what its redis.conf gives.

    I(running) and I(tried) are CONFIG GET * of the live server and of a throwaway one with the same redis.conf:
    the same binary writes both, so they compare as text. What ties a server to its place is compared with the
    directives themselves, where they name it.
    """
    changes = [
        SettingChange(name, running[name], value)
        for name, value in sorted(tried.items())
        if name in running and name not in _conf.PLACE_BOUND_DIRECTIVES and running[name] != value
    ]
    placed = {**PLACE_DEFAULTS, **{d.name: " ".join(d.args) for d in directives if d.name in COMPARED_PLACE_DIRECTIVES}}
    changes += [
        SettingChange(name, running[name], value)
        for name, value in sorted(placed.items())
        if name in running and not same_place(name, running[name], value)
    ]
    return changes


def same_place(name: str, running: str, wanted: str) -> bool:
    """Whether a server is where redis.conf puts it: it answers with a folder's real path, a mode without noughts."""
    if name == "dir":
        return os.path.realpath(running) == os.path.realpath(wanted)
    if name == "unixsocketperm":
        return running.lstrip("0") == wanted.lstrip("0")
    return running == wanted


def same_unasked(before: Sequence[_conf.Directive], wanted: Sequence[_conf.Directive]) -> bool:
    """Whether two redis.conf agree in what a throwaway server doesn't tell: its modules, new names and ties to a place.

    Whom a server follows, and how it is supervised, is not for redis.conf to say alone.
    """
    for name in _conf.START_ONLY_DIRECTIVES:
        if [d.args for d in before if d.name == name] != [d.args for d in wanted if d.name == name]:
            return False
    named = {d.name for d in [*before, *wanted]} & COMPARED_PLACE_DIRECTIVES
    return all(
        same_place(name, *(_conf.value(conf, name, PLACE_DEFAULTS.get(name, "")) for conf in (before, wanted)))
        for name in named
    )


def same_settings(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether CONFIG GET * of two throwaway servers is the same, but for what ties each to its own place."""
    free = (set(one) | set(other)) - _conf.PLACE_BOUND_DIRECTIVES
    return all(one.get(name) == other.get(name) for name in free)


PLACE_DEFAULTS = {
    "aclfile": "",
    "cluster-enabled": "no",
    "syslog-enabled": "no",
    "tls-port": "0",
    "tls-replication": "no",
    "unixsocket": "",
}
"""What a tie to a place is where redis.conf does not name it (any more)."""


COMPARED_PLACE_DIRECTIVES = _conf.PLACE_BOUND_DIRECTIVES - {"daemonize", "replicaof", "slaveof", "supervised"}
"""Ties to a place that CONFIG GET writes as redis.conf does, but for those that the command line or a failover sets."""


def moved_data(
    before: Sequence[_conf.Directive], wanted: Sequence[_conf.Directive], exists: Callable[[str], bool]
) -> str:
    """Return why a server would start without its data: its RDB lies where redis.conf said until now.

    Empty where nothing moves. I(exists) tells whether a file is there.
    """
    old, new = _conf.rdb_path(before), _conf.rdb_path(wanted)
    if old == new or not exists(old) or exists(new):
        return ""
    return (
        f"the server keeps its data in {old}, and the new redis.conf says {new}: it would start without its data. "
        "Set redis_server_dir and redis_server_dbfilename to where the data is, or move it there first"
    )


def unread_data(wanted: Sequence[_conf.Directive], exists: Callable[[str], bool]) -> str:
    """Return why a start would come up empty: with appendonly, Redis reads the AOF and never the RDB.

    Empty where it would not. Only switching appendonly on in the running server writes the AOF that a start needs.
    """
    if _conf.value(wanted, "appendonly", "no") != "yes" or any(exists(path) for path in _conf.aof_paths(wanted)):
        return ""
    rdb = _conf.rdb_path(wanted)
    if not exists(rdb):
        return ""
    return (
        f"appendonly is yes, but there is no AOF yet: a start would ignore {rdb} and come up empty. "
        "Run CONFIG SET appendonly yes on the running server first, and wait for its rewrite"
    )


START_ONLY_SETTINGS = frozenset(
    [
        "aclfile",
        "always-show-logo",
        "appenddirname",
        "appendfilename",
        "bio-cpulist",
        "bio_cpulist",
        "cluster-config-file",
        "cluster-enabled",
        "cluster-port",
        "daemonize",
        "databases",
        "disable-thp",
        "enable-debug-command",
        "enable-module-command",
        "enable-protected-configs",
        "io-threads",
        "io-threads-do-reads",
        "logfile",
        "pidfile",
        "rdbchecksum",
        "server-cpulist",
        "server_cpulist",
        "set-proc-title",
        "supervised",
        "syslog-enabled",
        "syslog-facility",
        "syslog-ident",
        "tcp-backlog",
        "unixsocket",
        "unixsocketperm",
    ]
)
"""Settings that a running server refuses to change. Only a forecast for check mode: a real run asks the server."""


def gives_up_persistence(change: SettingChange) -> bool:
    """Whether a setting makes a running server keep less of its data than it did."""
    return change.name == "save" or (change.name == "appendonly" and change.wanted != "yes")


def restart_reasons(
    pid: int, started_with: str, start_digest: str, verdicts: Sequence[Verdict], strangers: Sequence[LoadedModule]
) -> list[str]:
    """Return why the running server must be started anew to become what is wanted; empty where it must not.

    The I(verdicts) are those on what runs: owner and mode of a file are mended without a restart and are not
    asked for here. Only what the process itself shows counts, so a run that died between placing and restarting
    is finished by the next one.
    """
    if not pid:
        return ["the server does not run"]
    reasons = []
    if started_with != start_digest:
        reasons.append("it was started with another drop-in, module list or renamed commands")
    for verdict in verdicts:
        reasons += [f"module {verdict.name}: {difference}" for difference in verdict.differences]
    reasons += [f"module {stranger.name} is loaded but no longer configured" for stranger in strangers]
    return reasons
