# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at in a throwaway server that is up, and what is wrong there."""

from __future__ import annotations

import glob
import os
import re
import time
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _smoke, _trial

OUTSIDE_LIMIT = 64 << 20
"""Bytes of memory beside the allocator's that an idle server with its modules may have."""

CRON_SECONDS = 0.3
"""After this long, the server's own figures on its memory are fresh."""

QUIET = [_conf.Directive("appendonly", ("no",)), _conf.Directive("save", ("",))]
"""What a throwaway server gets after its own configuration: nothing is written unless we ask."""


def unquiet(settings: Mapping[str, str], directives: Sequence[_conf.Directive]) -> dict[str, str] | None:
    """Return CONFIG GET * of a throwaway server that got QUIET as it had been without; None where nobody can say.

    I(directives) is its redis.conf. What QUIET has changed, a server writes as redis.conf does.
    """
    saves = [d.args for d in directives if d.name == "save"]
    words: list[str] = []
    for args in saves:
        words = [] if args == ("",) else [*words, *args]
    if not saves or not all(word.isdigit() and str(int(word)) == word for word in words):
        return None
    appendonly = _conf.value(directives, "appendonly", "no")
    if appendonly not in ("yes", "no"):
        return None
    return {**settings, "save": " ".join(words), "appendonly": appendonly}


class TrialError(Exception):
    """The configuration must not meet the live server; all faults, one a line, and the throwaway server's log."""

    def __init__(self, faults: Sequence[str], log: Sequence[str] = ()) -> None:
        super().__init__("\n".join(faults))
        self.log = list(log)


def refuse(faults: str | Sequence[str], log: Sequence[str] = ()) -> None:
    """Raise TrialError where there is a fault, or several."""
    if faults:
        raise TrialError([faults] if isinstance(faults, str) else faults, log)


class Found(NamedTuple):
    """What a visit found.

    I(commands) are those of each module. I(outside_memory) is in bytes, I(processes) are the names of child
    processes. I(answers) are those to the smoke commands; I(fault) is the first one that is not as expected. I(users)
    are those of the server, where its redis.conf names any and does not rename ACL away.
    """

    commands: dict[str, list[str]]
    outside_memory: int
    processes: list[str]
    answers: list[_smoke.Answer]
    fault: str
    users: dict[str, list[str]] | None = None


class Visit:
    """Looks at a throwaway server with new modules and sends the smoke commands.

    I(modules) are declared entries, each with the file it is loaded from as C(artifact). What was being done when the
    server ended is in I(doing), with the module that it was done for. I(acl) is the name of ACL where users are to be
    read.
    """

    def __init__(self, modules: Sequence[Mapping[str, Any]], save: str, acl: str = "") -> None:
        self.modules = modules
        self.save = save
        self.acl = acl
        self.doing = ("", "COMMAND")

    def ask(self, client: _client.Client, name: str, words: Sequence[str]) -> Any:
        """Send one command for a module."""
        self.doing = (name, " ".join(words))
        return client.call(*words)

    def __call__(self, client: _client.Client, loaded: Sequence[_client.LoadedModule]) -> Found:
        """Look, send the smoke commands, look again, and save where there was any."""
        users = client.users(self.acl) if self.acl else None
        flags = flags_of_commands(client)
        commands = commands_by_module(client, flags, self.modules)
        answers: list[_smoke.Answer] = []
        fault = ""
        try:
            for module in self.modules:

                def ask(words: Sequence[str], name: str = module["name"]) -> Any:
                    return self.ask(client, name, words)

                answers += _smoke.perform(ask, [module], flags)
        except _smoke.SmokeError as error:
            fault = str(error)
        self.doing = ("", "INFO")
        outside, processes = outside_memory(client), child_processes(int(client.info().get("process_id", "0")))
        if answers and not fault and self.save:
            # Not by its new name, which is a secret.
            self.doing = (", ".join(dict.fromkeys(answer.module for answer in answers)), "SAVE")
            client.call(self.save)
        return Found(commands, outside, processes, answers, fault, users)


class Return:
    """Looks at a throwaway server that was started again, and asks again what only reads."""

    def __init__(self, answers: Sequence[_smoke.Answer]) -> None:
        self.answers = answers
        self.doing = ("", "")

    def __call__(self, client: _client.Client, loaded: Sequence[_client.LoadedModule]) -> str:
        """Return what is not as before; empty where all is."""
        for answer in self.answers:
            self.doing = (answer.module, " ".join(answer.smoke["command"]))
            try:
                _smoke.repeat(lambda words: client.call(*words), [answer])
            except _smoke.SmokeError as error:
                return str(error)
        return ""


class Save:
    """Saves what a throwaway server has loaded, which a data type without rdb_save does not survive."""

    def __init__(self, save: str) -> None:
        self.save = save
        self.doing = ("", save)

    def __call__(self, client: _client.Client, loaded: Sequence[_client.LoadedModule]) -> None:
        """Save. Raises ServerError."""
        if self.save:
            client.call(self.save)


def flags_of_commands(client: _client.Client) -> dict[str, frozenset[str]]:
    """Return all commands with their flags; empty where COMMAND is renamed away. Raises NotReachedError."""
    try:
        return client.commands()
    except _client.NotReachedError:
        raise
    except _client.ServerError:
        return {}


def names_in_use(client: _client.Client, loaded: Sequence[_client.LoadedModule]) -> dict[str, list[str]]:
    """Return what a throwaway server has that another module can't take."""
    # "readonly" stands in every module, as a flag of its commands.
    commands = sorted(name for name in flags_of_commands(client) if name != "readonly")
    return {"module": [module.name for module in loaded], "command": commands}


def collisions(path: str, used: Mapping[str, Sequence[str]]) -> str:
    """Return why a module may give up that does not say it, by the names in its file that are in use already."""
    taken = [f"the {what} {name}" for what, names in used.items() for name in named_in(path, names)]
    if not taken:
        return "it does not say why: it may want other arguments"
    return f"it does not say why, but its file names {', '.join(taken)}, which this server has already"


def commands_by_module(
    client: _client.Client, flags: Mapping[str, frozenset[str]], modules: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return the commands that each module registers, in lower case.

    Before 7.0 no server tells whose a command is: there it is the first module's whose file names it.
    """
    names = sorted(name for name, own in flags.items() if "module" in own)
    found: dict[str, list[str]] = {}
    try:
        for module in modules:
            told = client.call("COMMAND", "LIST", "FILTERBY", "MODULE", module["name"])
            found[module["name"]] = sorted(str(_client.text(name)).lower() for name in told)
    except _client.NotReachedError:
        raise
    except _client.ServerError:
        for module in modules:
            found[module["name"]] = named_in(module["artifact"], names)
            names = [name for name in names if name not in found[module["name"]]]
    return found


def named_in(path: str, names: Sequence[str]) -> list[str]:
    """Return those names that a file holds as text of their own, in any case. Empty where it can't be read."""
    try:
        with open(path, "rb") as stream:
            content = b"\0" + stream.read().lower() + b"\0"
    except OSError:
        return []
    return [name for name in names if b"\0" + name.lower().encode("utf-8", "surrogateescape") + b"\0" in content]


def outside_memory(client: _client.Client) -> int:
    """Return the bytes that a server has besides what Redis took from its allocator; 0 where that is little."""
    info = client.info()
    try:
        with open(f"/proc/{int(info['process_id'])}/status", encoding="utf-8") as stream:
            anonymous = re.search(r"^RssAnon:\s+(\d+) kB$", stream.read(), re.MULTILINE)
    except (OSError, KeyError, ValueError):
        return 0
    if not anonymous or (int(anonymous.group(1)) << 10) - int(info.get("used_memory", "0")) < OUTSIDE_LIMIT:
        return 0
    # What the allocator keeps for later counts as its own; the server looks that up ten times a second.
    time.sleep(CRON_SECONDS)
    info = client.info()
    here = int(anonymous.group(1)) << 10
    used, resident, allocated = (
        int(info.get(key, "0")) for key in ("used_memory", "allocator_resident", "allocator_allocated")
    )
    # Where the allocator is a library, as Debian's jemalloc, a module's malloc gets from it, too: no use of Redis' own.
    outside = max(here - max(resident, used), min(allocated, here) - used)
    return outside if outside >= OUTSIDE_LIMIT else 0


def child_processes(pid: int) -> list[str]:
    """Return the names of the other processes in the control group of process I(pid)."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
            groups = re.findall(r"^\d+:(?:name=systemd)?:(/.+)$", stream.read(), re.MULTILINE)
    except OSError:
        return []
    found = set()
    for group in groups:
        for place in glob.glob(f"/sys/fs/cgroup{group}/cgroup.procs") + glob.glob(
            f"/sys/fs/cgroup/*{group}/cgroup.procs"
        ):
            with open(place, encoding="utf-8") as stream:
                found |= {int(word) for word in stream.read().split()} - {pid}
    return [process_name(other) for other in sorted(found)]


def process_name(pid: int) -> str:
    """Return a process' name with its pid."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as stream:
            return f"{stream.read().strip()} ({pid})"
    except OSError:
        return str(pid)


def ended(trial: _trial.Trial, doing: tuple[str, str]) -> str:
    """Return how a server came to its end that was up, in a sentence; empty where it did not end."""
    if not trial.error or not trial.came_up:
        return ""
    name, command = doing
    words = [_trial.message_of(line) for line in _trial.crash_lines(trial.log)[:1]]
    if command.upper() == "SAVE":
        words.append("a data type without rdb_save does that")
    label = f"module {name}: " if name else ""
    return f"{label}a server with it ends at {command} ({trial.error})" + (": " + "; ".join(words) if words else "")


def burdens(
    found: Found,
    modules: Sequence[Mapping[str, Any]],
    allocators: Mapping[str, Sequence[str]],
    starters: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return what a server with the modules takes beside Redis' own, unless an entry accepts it.

    I(allocators) are the functions by which each module's file asks the system for memory, I(starters) those by which
    it starts processes.
    """
    faults = []
    who = [name for name, functions in allocators.items() if functions] or list(allocators)
    if found.outside_memory and not accepted(modules, who, "outside_memory"):
        faults.append(
            f"module {' or '.join(who)}: {found.outside_memory >> 20} MiB of the server's memory are taken past Redis' "
            "allocator, so maxmemory does not see them; use RedisModule_Alloc, or accept: [outside_memory] in its entry"
        )
    who = [name for name, functions in starters.items() if functions] or list(starters)
    if found.processes and not accepted(modules, who, "processes"):
        faults.append(
            f"module {' or '.join(who)}: the server has child processes, {', '.join(found.processes)}; "
            "they outlive a crash of the server and keep its sockets; accept: [processes] in the entry if that is meant"
        )
    return faults


def accepted(modules: Sequence[Mapping[str, Any]], names: Sequence[str], risk: str) -> bool:
    """Whether the entry of one of these modules accepts a risk."""
    return any(risk in (module.get("accept") or []) for module in modules if module["name"] in names)


ACL_ERROR = re.compile(r":(\d+): (?:Error in applying operation '([^']*)': )?([^.]*)\.")


def acl_faults(log: Sequence[str], aclfile: str, text: str) -> list[str]:
    """Return what Redis does not take in the ACL file at I(aclfile), whose text is given: user by user.

    Empty where the log of the start says nothing of it.
    """
    lines = text.splitlines()
    faults = []
    for line in log:
        if "ACL errors" not in line:
            continue
        for number, operation, why in ACL_ERROR.findall(line):
            words = lines[int(number) - 1].split() if 0 < int(number) <= len(lines) else []
            user = words[1] if len(words) > 1 else "?"
            rule = operation or ", ".join(word for word in words[2:] if re.match(r"[+-][^@]", word))
            faults.append(
                f"{aclfile} line {number}, user {user}: {rule}: {why}. A server does not start with a rule that names "
                "a command of no loaded module: change the rule first"
            )
    return faults


LOST_TYPE = re.compile(r"(?:no matching module(?: type)?|data for the module type) '([^']{1,9})'")
LOST_MODULE = re.compile(r"data for the module '([^']+)'")
LOST_AUX = re.compile(r"(?:AUX module|module AUX) data.* '([^']{1,9})'")


def lost_types(log: Sequence[str]) -> list[str]:
    """Return the data types that a server misses for its RDB, or that their module can't load, from its log."""
    return sorted({kind for line in log if not LOST_AUX.search(line) for kind in LOST_TYPE.findall(line)})


def lost_modules(log: Sequence[str]) -> list[str]:
    """Return the modules that read less or more than was written, from the log; before 7.0 it does not name them."""
    return sorted({name for line in log for name in LOST_MODULE.findall(line)})


def lost_aux(log: Sequence[str]) -> list[str]:
    """Return the data types whose AUX fields in an RDB a server can't load, from its log."""
    return sorted({kind for line in log for kind in LOST_AUX.findall(line)})


def misread(log: Sequence[str]) -> bool:
    """Whether a server ended in a module's own reading of the RDB: by a crash, or by less or more than was written."""
    return bool(_trial.crash_lines(log)) or any("data for the module '" in line for line in log)


def reason(trial: _trial.Trial) -> str:
    """Return why a server ended, in its own words.

    A module's last ones, or what it could not load; else how it crashed, else its last line.
    """
    own = [line for line in trial.log if re.search(r"# <[^ >]+> |I can't load|server aborting", line)]
    telling = own[-1:] or _trial.crash_lines(trial.log)[:1] or trial.log[-1:] or [trial.error]
    return _trial.message_of(telling[0]).rstrip(".")


def module_lines(directives: Sequence[_conf.Directive]) -> list[_conf.Directive]:
    """Return the loadmodule directives whose file is there."""
    return [d for d in directives if d.name == "loadmodule" and d.args and os.path.isfile(d.args[0])]
