# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change a running server's modules without a restart: what can be, why not, and how, with the way back.

MODULE UNLOAD does what it is told: the server crashes later where something still points into the code that went. So
all that is known to do that is looked for first. What the server itself refuses does no harm.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _host, _release

LOAD, RELOAD, UNLOAD = "load", "reload", "unload"
RESTART, HOT, HOT_OR_RESTART = "restart", "hot", "hot_or_restart"

OUTLASTING = {
    "RedisModule_EventLoopAdd": "watches files or sockets",
    "RedisModule_EventLoopAddOneShot": "puts calls off",
    "RedisModule_RegisterClusterMessageReceiver": "takes messages of the cluster",
}
"""What a server keeps calling when the module is gone; by the function that asks for it."""

MODULE_COMMAND_SINCE = (7, 0)
"""From here on: enable-module-command, LOADEX, the path and arguments in MODULE LIST, and no UNLOAD beside timers."""


class Change(NamedTuple):
    """What is to happen to one module of the running server: it is loaded, reloaded or unloaded."""

    name: str
    step: str
    strategy: str


class Code(NamedTuple):
    """What a module's file says of itself, without being run.

    I(calls) are the functions of the module API that its code calls, None where that is not known. I(nodelete) is
    whether it stays in the process for ever, I(threads) whether it starts some and has no way to end them.
    """

    calls: frozenset[str] | None
    nodelete: bool
    threads: bool


class Seen(NamedTuple):
    """What a change depends on.

    I(running) is the code that goes and I(new) that which comes, each None where there is none or it can't be seen;
    I(args) are the arguments that the module runs with, None where nobody knows them. I(used_by) are other modules,
    I(named) sentences on ACL users that name one of its commands.
    """

    running: Code | None = None
    new: Code | None = None
    args: Sequence[str] | None = ()
    used_by: Sequence[str] = ()
    named: Sequence[str] = ()


def changes(
    entries: Sequence[Mapping[str, Any]], loaded: Iterable[str], differing: Iterable[str], record: str
) -> list[Change]:
    """Return what is to happen to the running modules; those that go come first.

    I(entries) are the declared modules, I(loaded) the names of those that run, I(differing) those that do not run as
    declared. I(record) is what the last start left: before Redis 7.0, it alone tells of other arguments.
    """
    known = _conf.started_modules(record)
    here, other = set(loaded), set(differing)
    going, coming = [], []
    for entry in entries:
        name, strategy = entry["name"], entry["strategy"]
        if entry["state"] == "absent":
            going += [Change(name, UNLOAD, strategy)] if name in here else []
        elif name not in here:
            coming.append(Change(name, LOAD, strategy))
        elif name in other or (known is not None and line_digest(entry["path"], entry["args"]) not in known):
            coming.append(Change(name, RELOAD, strategy))
    declared = {entry["name"] for entry in entries}
    return [Change(name, UNLOAD, RESTART) for name in sorted(here - declared)] + going + coming


def line_digest(path: str, args: Sequence[str]) -> str:
    """Return what a start leaves of one module: see _conf.start_digest."""
    return _conf.line_digest(_conf.Directive("loadmodule", (path, *args)))


def arguments(path: str, record: str, confs: Sequence[Sequence[_conf.Directive]]) -> list[str] | None:
    """Return the arguments that the module at I(path) was loaded with, where the server does not tell (before 7.0).

    I(confs) are the redis.conf that may have been there at the start; I(record) proves it. None where none was.
    """
    known = _conf.started_modules(record) or frozenset()
    for directives in confs:
        for line in directives:
            if line.name == "loadmodule" and line.args[:1] == (path,) and _conf.line_digest(line) in known:
                return list(line.args[1:])
    return None


def code(path: str, calls: frozenset[str] | None, nodelete: bool) -> Code:
    """Return what is known of a file, with what others have read from it. Raises OSError."""
    with open(path, "rb") as stream:
        content = stream.read()
    threads = b"\0pthread_create\0" in content and b"\0RedisModule_OnUnload\0" not in content
    return Code(calls, nodelete, threads)


def obstacles(change: Change, seen: Seen, version: tuple[int, ...]) -> list[str]:
    """Return why one module can't be changed in the running server, a sentence each; empty where it can.

    What comes must be able to go as well: a later module may fail, and everything is taken back.
    """
    if change.strategy == RESTART:
        return [f"module {change.name} changes as well, and its strategy is restart"]
    found = []
    for what, file in (("the file that it runs from", seen.running), ("the new file", seen.new)):
        found += [f"{what} {fault}" for fault in _code_obstacles(file, version)] if file else []
    if change.step != LOAD:
        if seen.running is None:
            found.append("the file that it runs from can't be read, so it could not be loaded again")
        if seen.args is None:
            found.append("nobody knows the arguments that it runs with, so it could not be loaded again")
        if seen.used_by:
            found.append(f"it is used by {', '.join(seen.used_by)}")
        found += seen.named
    return [f"module {change.name}: {fault}" for fault in found]


def _code_obstacles(file: Code, version: tuple[int, ...]) -> list[str]:
    found = []
    if file.nodelete:
        found.append("is marked NODELETE: its code would stay when it is unloaded, and run in place of the next")
    if file.threads:
        found.append("starts threads and has no RedisModule_OnUnload to end them: they would crash the server")
    if file.calls is None:
        if version < MODULE_COMMAND_SINCE:
            found.append(
                "can't be read for its calls; were there a timer, Redis before 7.0 would unload it all the same "
                "and crash when it fires"
            )
        return found
    if "RedisModule_CreateDataType" in file.calls:
        found.append("has a data type, and no server unloads those")
    if "RedisModule_CreateTimer" in file.calls and version < MODULE_COMMAND_SINCE:
        found.append("uses timers: Redis before 7.0 would unload it and crash when one fires")
    found += [
        f"{what} ({function}), and the server would go on calling it"
        for function, what in OUTLASTING.items()
        if function in file.calls
    ]
    return found


def command_obstacle(version: tuple[int, ...], enabled: str, local: bool) -> str:
    """Return why MODULE LOAD and UNLOAD are not allowed here; empty where they are.

    I(enabled) is the setting enable-module-command, I(local) whether the connection is one from the host itself.
    """
    if version < MODULE_COMMAND_SINCE or enabled == "yes" or (enabled == "local" and local):
        return ""
    return (
        f"enable-module-command is {enabled}, so the server takes no MODULE LOAD"
        f"{' over this connection' if enabled == 'local' else ''}; set it to yes or local in "
        "redis_server_extra_directives (a restart of its own)"
    )


def used_by(reply: bytes) -> dict[str, list[str]]:
    """Read INFO modules: the name of each module, and of the modules that use it."""
    found = {}
    for line in _client.text(reply).splitlines():
        match = re.match(r"module:name=(.*?),ver=.*,usedby=\[(.*?)\]", line)
        if match:
            found[match.group(1)] = [name for name in match.group(2).split("|") if name]
    return found


def named_by(rules: Sequence[str], commands: Iterable[str], owner: str) -> list[str]:
    """Return which ACL users name one of the commands, a sentence each.

    I(rules) are the lines of ACL LIST. I(owner) says whose commands they are.
    """
    known = {command.lower().split("|", 1)[0] for command in commands}
    found = []
    for rule in rules:
        words = rule.split()
        named = {re.sub(r"^\(?[+-]|\|.*|\)+$", "", word).lower() for word in words[2:] if re.match(r"\(?[+-]", word)}
        for command in sorted(named & known):
            found.append(f"the ACL user {words[1]} names {owner} command {command}, and UNLOAD would crash the server")
    return found


class HotError(Exception):
    """The change failed in the running server; the text is for the operator."""


class RefusedError(HotError):
    """The server itself does not unload a module: nothing happened to it."""


class Loading(NamedTuple):
    """How a module is loaded: the path that it is loaded from, its arguments and its own directives.

    Where I(copy) is given, that file is put at the path before.
    """

    path: str
    args: Sequence[str]
    config: Mapping[str, str]
    copy: str = ""

    def words(self) -> list[str]:
        """Return the command without MODULE."""
        if not self.config:
            return ["LOAD", self.path, *self.args]
        settings = [word for name, value in self.config.items() for word in ("CONFIG", name, value)]
        return ["LOADEX", self.path, *settings, *(["ARGS", *self.args] if self.args else [])]


class Step(NamedTuple):
    """One module: I(former) is what runs and goes, I(new) what comes."""

    name: str
    former: Loading | None
    new: Loading | None


class Switch:
    """Changes modules one after another, so that each is away for a moment only, and knows the way back.

    I(call) sends MODULE with its words, I(confirm) raises HotError where a module does not run as it should.
    """

    def __init__(self, call: Callable[..., Any], confirm: Callable[[str], None]) -> None:
        self._call = call
        self._confirm = confirm
        self._way_back: list[tuple[str, Loading | None]] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Do it. Raises RefusedError, HotError and OSError; where the way stops, it stays."""
        for step in steps:
            if step.former:
                self._unload(step.name)
                self._way_back.append((step.name, step.former))
            if step.new:
                self._load(step.name, step.new)
                self._way_back.append((step.name, None))
                self._confirm(step.name)

    def take_back(self) -> str:
        """Bring back what ran before and return what was done, in a sentence. Raises HotError where that fails."""
        again = []
        for name, former in reversed(self._way_back):
            if former is None:
                self._unload(name)
                continue
            self._load(name, former)
            again.append(name)
        self._way_back = []
        if again:
            return f"what ran before was loaded again at once: {', '.join(sorted(again))}"
        return "the running server has the modules that it had before"

    def _unload(self, name: str) -> None:
        try:
            self._call("UNLOAD", name)
        except _client.NotReachedError as error:
            raise HotError(f"module {name}: the server ended or hung at MODULE UNLOAD: {error}") from error
        except _client.ServerError as error:
            raise RefusedError(f"module {name}: the server does not unload it: {error}") from error

    def _load(self, name: str, loading: Loading) -> None:
        if loading.copy:
            put_back(loading.copy, loading.path)
        try:
            self._call(*loading.words())
        except _client.NotReachedError as error:
            raise HotError(f"module {name}: the server ended or hung at MODULE LOAD: {error}") from error
        except _client.ServerError as error:
            raise HotError(f"module {name}: the running server does not load {loading.path}: {error}") from error


def put_back(copy: str, path: str) -> None:
    """Put a kept file at I(path) unless that has the same bytes, with the access that the file there has."""
    access = os.stat(path if os.path.exists(path) else copy)
    if not os.path.exists(path) or _host.sha256_of(path) != _host.sha256_of(copy):
        _release.replace(copy, path, access.st_uid, access.st_gid, access.st_mode & 0o7777 | 0o111)
