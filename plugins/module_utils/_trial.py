# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a throwaway server beside the live one: the host's own binary is the judge of a configuration.

It runs as the service would (see _sandbox), in a folder of its own, on a unix socket only, without the live server's
data, and is bounded in time from outside even if whoever started it dies.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
import time
from typing import Any, NamedTuple, Protocol, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _host, _sandbox, _unit

LIMIT = 30
"""Seconds after which a throwaway server is ended from outside, whatever happens."""

NOT_READY = f"it was not ready after {LIMIT} seconds"
LOG_LINES = 15
"""Lines that an operator is shown."""
KEPT_LINES = 400
"""Lines that are looked through for the module that failed."""
LINE_LENGTH = 300


class Trial(NamedTuple):
    """What a throwaway server showed.

    I(settings) is CONFIG GET * of it, with secrets. I(log) are its telling lines. Where it did not come up,
    I(error) says so and the rest is empty.
    """

    error: str
    modules: list[_client.LoadedModule]
    settings: dict[str, str]
    log: list[str]


class Server(Protocol):
    """What runs a throwaway server: _sandbox.TransientUnit."""

    def start(self, command: Sequence[str], folder: str, log: str) -> None:
        """Start it in its folder, with its output in a file."""

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


def in_place_of(
    run_command: _host.Run, service: Service, directives: Sequence[_conf.Directive], artifacts: dict[str, str]
) -> Trial:
    """Try a configuration as the service would run it; I(artifacts) maps a module's path to the file to try for it.

    Raises OSError, KeyError (no such user) and _sandbox.SandboxError.
    """
    own = _unit.dropin_path(service.unit)
    sandbox = _sandbox.of_unit(run_command, service.unit, own, service.dropin)
    # What is not in the module folder yet may be run from where it is.
    elsewhere = {os.path.dirname(file) for file in artifacts.values()} - {os.path.dirname(path) for path in artifacts}
    sandbox += [f"ExecPaths={folder}" for folder in sorted(elsewhere)]
    server = _sandbox.TransientUnit(run_command, sandbox, LIMIT)
    return run(server, service.binary, service.user, _conf.with_module_paths(directives, artifacts))


def run(server: Server, binary: str, user: str, directives: Sequence[_conf.Directive], base: str = "/run") -> Trial:
    """Start, look and end. I(directives) are those of the real redis.conf, module paths already as wanted.

    Raises OSError where the folder below I(base) can't be made, KeyError where there is no such user, and
    SandboxError.
    """
    account = pwd.getpwnam(user)
    folder = tempfile.mkdtemp(prefix="redis-trial-", dir=base)
    log = os.path.join(folder, "log")
    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        socket = os.path.join(folder, "s")
        conf = os.path.join(folder, "redis.conf")
        # In the file rather than on the command line, which everybody on the host may read.
        descriptor = os.open(conf, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(_conf.render(_conf.for_trial(directives, folder, socket)))
        os.chown(conf, account.pw_uid, account.pw_gid)
        server.start([binary, conf], folder, log)
        return _await_answer(server, socket, directives, log)
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


def _await_answer(server: Server, socket: str, directives: Sequence[_conf.Directive], log: str) -> Trial:
    """Ask until the server answers, ends or takes too long: its socket is there before its modules are loaded."""
    deadline = time.monotonic() + LIMIT
    error = NOT_READY
    while time.monotonic() < deadline:
        try:
            if os.path.exists(socket):
                return _look(socket, directives, log)
        except _client.NotReachedError:
            pass
        except _client.ServerError as refused:
            error = f"it started, but {refused}"
            break
        ended = server.ended()
        if ended:
            error = ended
            break
        time.sleep(0.005)
    return Trial(error, [], {}, _last_lines(log))


def _look(socket: str, directives: Sequence[_conf.Directive], log_path: str) -> Trial:
    """Ask the throwaway server. Raises ServerError."""
    params = {"login_unix_socket": socket, "login_timeout": 5.0, **_login(directives)}
    client = _client.connect(params, _conf.renamed_command(directives, "CONFIG"))
    try:
        modules = client.modules()
        settings = client.settings() if client.config_command else {}
    finally:
        client.close()
    return Trial("", modules, settings, _last_lines(log_path))


def _login(directives: Sequence[_conf.Directive]) -> dict[str, str]:
    """Return the password that the configuration itself sets for the default user."""
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

    Its start-up picture and notices are dropped; of a crash report, the signal and the frames stay, not the dumps.
    """
    noise = re.compile(
        "oO0OoO0OoO0Oo|Configuration loaded|monotonic clock|overcommit_memory|Increased maximum number|Redis version="
        "|Session terminated"
    )
    kept: list[str] = []
    in_report = False
    for line in lines:
        in_report = in_report or "REDIS BUG REPORT START" in line
        if not line.strip() or noise.search(line) or (in_report and not _tells_of_crash(line)):
            continue
        kept.append(_without_secrets(line)[:LINE_LENGTH])
    return kept[-KEPT_LINES:]


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
    if unloaded and trial.error == NOT_READY:
        return _blame(unloaded[0], trial, "its OnLoad does not return")
    if unloaded and len(unloaded) < len(modules) and crash_lines(trial.log):
        return _blame(unloaded[0], trial, message_of(crash_lines(trial.log)[0]))
    last = message_of(trial.log[-1]) if trial.log else "it wrote no log"
    return f"a server with this configuration does not start ({trial.error}): {last}"


def _blame(module: dict[str, Any], trial: Trial, words: str) -> str:
    return f"module {module['name']}: a server with it does not start ({trial.error}): {words}"


def crash_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines of a crash report that name the signal and the address."""
    return [line for line in lines if re.search(r"crashed by signal|Accessing address|ASSERTION FAILED", line)]


def message_of(line: str) -> str:
    """Return the text of a line of Redis' log without pid, role, date and level."""
    match = re.match(r"\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [.\-*#] (.*)", line)
    return match.group(1) if match else line.strip()
