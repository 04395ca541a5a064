# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a throwaway server beside the live one: the host's own binary is the judge of a configuration.

It runs as the service would (see _sandbox), in a folder of its own, on a unix socket only, without the live server's
data, and is bounded in time from outside even if whoever started it dies.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from typing import Any, Hashable, Mapping, NamedTuple, Protocol, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _memo,
    _sandbox,
    _scratch,
    _unit,
)

LIMIT = 30
"""Seconds after which a throwaway server is ended from outside, whatever happens."""

POLL_SECONDS = 0.005
ANSWER_SECONDS = 5.0
NOT_READY = "it was not ready"
LOG_LINES = 15
"""Lines that an operator is shown."""
KEPT_LINES = 400
"""Lines that are looked through for the module that failed."""
LINE_LENGTH = 300


class Trial(NamedTuple):
    """What a throwaway server showed.

    I(settings) is CONFIG GET * of it, with secrets. I(log) are its telling lines. Where it did not come up, or ended
    while it was visited, I(error) says so. I(found) is what the visit returned.
    """

    error: str
    modules: list[_client.LoadedModule]
    settings: dict[str, str]
    log: list[str]
    came_up: bool = False
    found: Any = None


class Server(Protocol):
    """What runs a throwaway server: _sandbox.TransientUnit."""

    def start(self, command: Sequence[str], folder: str, log: str, limit: int) -> None:
        """Start it in its folder, with its output in a file; it is ended after I(limit) seconds."""

    def ended(self) -> str:
        """Return how it ended; empty while it runs."""

    def end(self) -> None:
        """End it."""


class Service(NamedTuple):
    """The service whose place a throwaway server takes; I(dropin) is the drop-in that the unit is going to have."""

    unit: str
    dropin: str
    binary: str
    user: str


class Visit(Protocol):
    """What is done with a throwaway server that is up; what it returns becomes Trial.found."""

    def __call__(self, client: _client.Client, loaded: Sequence[_client.LoadedModule], /) -> Any:
        """May raise what it likes; NotReachedError means that the server ended meanwhile."""


class Workshop:
    """A folder for throwaway servers of one service, one after another; it is gone when the block ends."""

    def __init__(self, server: Server, service: Service, base: str = "/run") -> None:
        self.server = server
        self.service = service
        self.base = base
        self.folder = ""
        self.held = contextlib.ExitStack()

    def __enter__(self) -> Workshop:
        """Make the folder. Raises OSError, and KeyError where there is no such user."""
        self.account = pwd.getpwnam(self.service.user)
        self.folder = self.held.enter_context(_scratch.folder(_scratch.TRIAL, self.base))
        os.chown(self.folder, self.account.pw_uid, self.account.pw_gid)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave nothing behind."""
        self.server.end()
        self.held.close()

    def path(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return os.path.join(self.folder, name)

    def write(self, name: str, text: str) -> str:
        """Write a file that the service's user alone may read; return its path."""
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
        self.give(name)
        return self.path(name)

    def give(self, name: str) -> None:
        """Let the service's user have a file in the folder."""
        os.chown(self.path(name), self.account.pw_uid, self.account.pw_gid)

    def run(
        self,
        directives: Sequence[_conf.Directive],
        visit: Visit | None = None,
        limit: int = LIMIT,
        answer: float = ANSWER_SECONDS,
    ) -> Trial:
        """Start a server with the directives of a real redis.conf, module paths already as wanted; look, and end it.

        It is ended after I(limit) seconds, and given up where one answer takes more than I(answer).

        Raises OSError, and SandboxError.
        """
        own = _conf.for_trial(directives, self.folder, self.path("s"))
        aclfile = _conf.value(directives, "aclfile", "")
        if aclfile and os.path.isfile(aclfile):
            with open(aclfile, encoding="utf-8", errors="surrogateescape") as stream:
                own.append(_conf.Directive("aclfile", (self.write("users.acl", open_to_us(stream.read())),)))
        for leftover in ("s", "log"):
            if os.path.lexists(self.path(leftover)):
                os.unlink(self.path(leftover))
        # In the file rather than on the command line, which everybody on the host may read.
        conf = self.write("redis.conf", _conf.render(own))
        try:
            # Who waits here gives up first, and says why; systemd ends it where that died.
            self.server.start([self.service.binary, conf], self.folder, self.path("log"), limit + LIMIT)
            return self._await_answer(directives, visit, limit, answer)
        finally:
            self.server.end()

    def _await_answer(
        self, directives: Sequence[_conf.Directive], visit: Visit | None, limit: int, answer: float
    ) -> Trial:
        """Ask until the server answers, ends or takes too long: its socket is there before its modules are loaded."""
        deadline = time.monotonic() + limit
        error = f"{NOT_READY} after {limit} seconds"
        while time.monotonic() < deadline:
            try:
                if os.path.exists(self.path("s")):
                    return self._look(directives, visit, answer)
            except _client.NotReachedError:
                pass
            except _client.ServerError as refused:
                # While it loads its data, it answers nothing else.
                if "LOADING" not in str(refused) and "loading the dataset" not in str(refused):
                    error = f"it started, but {refused}"
                    break
            error_now = self.server.ended()
            if error_now:
                error = error_now
                break
            time.sleep(POLL_SECONDS)
        return Trial(error, [], {}, _last_lines(self.path("log")))

    def _look(self, directives: Sequence[_conf.Directive], visit: Visit | None, answer: float) -> Trial:
        """Ask the throwaway server, and visit it. Raises ServerError where it is not up yet."""
        params = {"login_unix_socket": self.path("s"), "login_timeout": answer, **_login(directives)}
        client = _client.connect(params, _conf.renamed_command(directives, "CONFIG"))
        try:
            modules = client.modules()
            settings = client.settings() if client.config_command else {}
            error, found = "", None
            try:
                found = visit(client, modules) if visit else None
            except _client.NotReachedError:
                error = self._end_seen() or f"it does not answer within {answer:.0f} seconds"
        finally:
            client.close()
        return Trial(error, modules, settings, _last_lines(self.path("log")), True, found)

    def _end_seen(self) -> str:
        """Return how a server ended that hung up a moment ago; empty where it did not within two seconds."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            ended = self.server.ended()
            if ended:
                return ended
            time.sleep(POLL_SECONDS)
        return ""


def open_to_us(acl: str) -> str:
    """Return the text of an ACL file for a throwaway server: each rule as it is, but the default user may do all.

    So Redis itself judges every rule beside the modules.
    """
    lines = acl.splitlines()
    mine = [number for number, line in enumerate(lines) if line.split()[:2] == ["user", "default"]]
    for number in mine:
        lines[number] += OPEN
    return "\n".join(lines if mine else [*lines, "user default" + OPEN]) + "\n"


OPEN = " on nopass ~* +@all"


def in_place_of(
    run_command: _host.Run,
    service: Service,
    directives: Sequence[_conf.Directive],
    artifacts: dict[str, str],
    visit: Visit | None = None,
) -> Trial:
    """Try a configuration as the service would run it; I(artifacts) maps a module's path to the file to try for it.

    Raises OSError, KeyError (no such user) and _sandbox.SandboxError.
    """
    with Workshop(sandboxed(run_command, service, artifacts), service) as shop:
        return shop.run(_conf.with_module_paths(directives, artifacts), visit)


def _question(service: Service, directives: Sequence[_conf.Directive], files: Mapping[str, str]) -> Hashable:
    """Return all that the answer of a throwaway server depends on; I(files) maps a module's path to the file for it."""
    digests = tuple((path, _host.sha256_of(file)) for path, file in sorted(files.items()))
    return ("trial", service, tuple(directives), digests)


def keep(service: Service, directives: Sequence[_conf.Directive], files: Mapping[str, str], trial: Trial) -> None:
    """Remember what a throwaway server has shown, for a later step of this process. Raises OSError."""
    if not _memo.is_shared():
        return
    path_of = {file: path for path, file in files.items()}
    modules = [module._replace(path=path_of.get(module.path or "", module.path)) for module in trial.modules]
    _memo.keep(_question(service, directives, files), trial._replace(modules=modules))


def kept(service: Service, directives: Sequence[_conf.Directive], files: Mapping[str, str]) -> Trial | None:
    """Return what keep() has remembered of this service, configuration and files' content; None where nothing is.

    Raises OSError.
    """
    trial: Trial | None = _memo.kept(_question(service, directives, files)) if _memo.is_shared() else None
    return trial


def sandboxed(run_command: _host.Run, service: Service, artifacts: dict[str, str], data: bool = False) -> Server:
    """Return what starts a throwaway server as the service would; with I(data) it may write as much as it holds.

    Raises OSError.
    """
    own = _unit.dropin_path(service.unit)
    sandbox = _sandbox.of_unit(run_command, service.unit, own, service.dropin)
    # In check mode, what is not in the module folder yet may be run from where it is.
    folders = tuple(os.path.dirname(path) + "/" for path in artifacts)
    elsewhere = {os.path.dirname(file) for file in artifacts.values() if not file.startswith(folders)}
    sandbox += [f"ExecPaths={folder}" for folder in sorted(elsewhere)]
    return _sandbox.TransientUnit(run_command, sandbox, None if data else _sandbox.MOST_WRITTEN)


def _login(directives: Sequence[_conf.Directive]) -> dict[str, str]:
    """Return how to log in to a throwaway server with this configuration."""
    if _conf.has_users(directives):
        return {"login_user": _conf.TRIAL_USER, "login_password": _conf.TRIAL_USER}
    password = _conf.value(directives, "requirepass", "")
    return {"login_password": password} if password else {}


def _last_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return telling_lines(stream.read().splitlines())
    except OSError:
        return []


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Return the last lines of a Redis log that say something.

    Its start-up picture and notices are dropped, and the check of an RDB; of a crash report, the signal and the frames
    stay, not the dumps.
    """
    noise = re.compile(
        "oO0OoO0OoO0Oo|Configuration loaded|monotonic clock|overcommit_memory|Increased maximum number|Redis version="
        # From 7.0 on, a server that can't read its RDB checks the file and prints what is well with it.
        r"|Session terminated|^\[(offset|info|additional info)\b"
    )
    kept: list[str] = []
    in_report = False
    for line in lines:
        in_report = in_report or "REDIS BUG REPORT START" in line
        if not line.strip() or noise.search(line) or (in_report and not _tells_of_crash(line)):
            continue
        kept.append(_without_secrets(line)[:LINE_LENGTH])
    # Which modules were loaded tells whose turn it was, however much that one wrote.
    return [line for line in kept[:-KEPT_LINES] if _loading(line)] + kept[-KEPT_LINES:]


def _without_secrets(line: str) -> str:
    """Return a line without the secret that it quotes: Redis shows the line of redis.conf that it could not read."""
    quoted = re.match(r">>> '(.*)'?$", line)
    return f">>> '{_conf.masked(quoted.group(1).rstrip(chr(39))).strip()}'" if quoted else line


def _tells_of_crash(line: str) -> bool:
    return bool(crash_lines([line]) or re.search(r"BUG REPORT START|\(\S*\+0x[0-9a-f]+\)\s*\[", line))


def faults(trial: Trial, modules: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a trial shows to be wrong with the declared modules; empty where all is as declared.

    Each of I(modules) has name, artifact (the path it was tried from), args and version as in redis_modules.
    """
    if trial.error:
        return [startup_fault(trial, modules)]
    found: list[str] = []
    loaded = {module.name: module for module in trial.modules}
    strangers = sorted(
        name for name, module in loaded.items() if not module.built_in and name not in {m["name"] for m in modules}
    )
    for module in modules:
        name, seen = module["name"], loaded.get(module["name"])
        if seen is None:
            known = [other for other in strangers if loaded[other].path in (None, module["artifact"])]
            hint = f"; the file calls itself {' or '.join(known)}: declare it by that name" if known else ""
            found.append(f"module {name}: it loads, but MODULE LIST does not report this name{hint}")
            continue
        if module.get("version") is not None and seen.version != module["version"]:
            found.append(f"module {name}: MODULE LIST reports version {seen.version}, declared is {module['version']}")
        if seen.args is not None and list(seen.args) != list(module.get("args") or []):
            found.append(
                f"module {name}: it received the arguments {list(seen.args)}, declared are {module.get('args')}"
            )
    return found


def startup_fault(trial: Trial, modules: Sequence[dict[str, Any]]) -> str:
    """Return one sentence on why a server did not start, with the module's own words where its log has them.

    Modules are loaded in the given order, so the first one that is not logged as loaded is the one that failed.
    """
    before = _before_modules(trial)
    if before:
        return before
    unloaded = []
    for module in modules:
        about = [line for line in trial.log if module["artifact"] in line]
        if any("loaded from" in line for line in about):
            continue
        unloaded.append(module)
        own = [line for line in trial.log if f"<{module['name']}>" in line]
        crash = crash_lines(trial.log)[:1] if about else []
        words = [message_of(line) for line in crash + own[-2:] + about[:1]]
        if words:
            return _blame(module, trial, "; ".join(words))
    if unloaded and trial.error.startswith(NOT_READY):
        return _blame(unloaded[0], trial, "its OnLoad does not return")
    if unloaded and any(_loading(line) for line in trial.log):
        printed = [line for line in trial.log if message_of(line) == line.strip()]
        words = crash_lines(trial.log)[:1] or printed[-1:] or ["it ends when it loads it, its log does not say why"]
        return _blame(unloaded[0], trial, message_of(words[0]))
    own = [f"{m['name']} ({', '.join(m['config'])})" for m in modules if m.get("config")]
    if own and any("Module Configuration detected" in line for line in trial.log):
        return f"module {' or '.join(own)}: it does not know all directives in config of its entry ({trial.error})"
    last = message_of(trial.log[-1]) if trial.log else "it wrote no log"
    return f"a server with this configuration does not start ({trial.error}): {last}"


def _before_modules(trial: Trial) -> str:
    """Return why a server ended before it came to its modules, which are not to blame then; empty where it did not."""
    for line, following in zip(trial.log, trial.log[1:]):
        if "No such command in rename-command" in following:
            return (
                f"redis_server_rename_commands can't be: this server's core has no such command ({line.strip('> ')}). "
                "A module's command can't be renamed, as Redis renames before it loads modules: list it in "
                "restricted_commands of the module's entry"
            )
        if "Failed to configure TLS" in following:
            return f"a server with this configuration does not start ({trial.error}): {message_of(line)}"
    return ""


def silent(trial: Trial, modules: Sequence[dict[str, Any]]) -> int | None:
    """Return the number in I(modules) of the one whose OnLoad gave up without a word of its own, if there is one."""
    for number, module in enumerate(modules):
        if any("initialization failed" in line and module["artifact"] in line for line in trial.log):
            return None if any(f"<{module['name']}>" in line for line in trial.log) else number
    return None


def _loading(line: str) -> bool:
    """Whether a line says that the configuration is read, or a module is loaded: the next one's turn comes."""
    return "Running mode=" in line or (line.endswith(".so") and "loaded from" in line)


def _blame(module: dict[str, Any], trial: Trial, words: str) -> str:
    return f"module {module['name']}: a server with it does not start ({trial.error}): {words}"


def crash_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines of a crash report that name the reason, the signal and the address."""
    named = r"Guru Meditation|crashed by signal|Accessing address|ASSERTION FAILED"
    return [line for line in lines if re.search(named, line)]


def message_of(line: str) -> str:
    """Return the text of a line of Redis' log without pid, role, date and level."""
    match = re.match(r"\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [.\-*#] (.*)", line)
    return match.group(1) if match else line.strip()
