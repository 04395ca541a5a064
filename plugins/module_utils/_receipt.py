# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receipt of a host: what it was last brought to, and what was seen there then.

Where the same is declared and the same is seen, there is nothing to do, and nobody has to render a template to know.
What is declared goes in as one digest, that the controller works out; what is seen as one text for each subject.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _observe,
    _places,
    _plan,
    _release,
    _told,
)

FORMAT = 1
"""Another one in a receipt means that nobody here can read it."""

FAILOVERS = frozenset({"replicaof", "slaveof"})
"""Settings that are for failovers to decide, and no difference."""

MISSING = "missing"
UNREADABLE = "can't be read"
NFT_TABLE = "the nftables table"


class Look(NamedTuple):
    """What to look at on a host, as the roles have it: kept in the receipt, so that nobody has to work it out again.

    I(modules) are those of redis_modules_confirm. I(files) are compared by owner, mode and digest, I(units), beside the
    server's, by their state, I(packages) by their version. I(firewall) is what the module redis_firewall told, empty
    where the table is nobody's business.
    """

    unit: str
    conf_path: str
    binary: str
    folder: str
    owner: str
    group: str
    mode: str
    user: str
    data_folder: str
    modules: Sequence[Mapping[str, Any]]
    packages: Sequence[str]
    files: Sequence[str]
    units: Sequence[str] = ()
    exposure: float | None = None
    firewall: Mapping[str, Any] = {}

    @property
    def wanted(self) -> list[_plan.Wanted]:
        """Return the modules as they have to be."""
        return [
            _plan.Wanted(
                name=str(entry["name"]),
                state=str(entry.get("state") or "present"),
                path=str(entry["path"]),
                args=list(entry.get("args") or []),
                version=entry.get("version"),
                sha256=str(entry.get("sha256") or ""),
                owner=self.owner,
                group=self.group,
                mode=self.mode,
            )
            for entry in self.modules
        ]


class Receipt(NamedTuple):
    """What a host was brought to.

    I(declared) is the digest of all that was declared, I(reached) the time in seconds since 1970, I(seen) what was
    there then, I(salt) what the digests of settings and users in it are made with, as some of those are secrets.
    """

    declared: str
    reached: int
    look: Look
    salt: str
    seen: Mapping[str, str]


class Seen(NamedTuple):
    """One look at a host: I(state) by subject, what became of the modules, and the server's place in the fleet."""

    state: dict[str, str]
    verdicts: list[_plan.Verdict]
    server_version: str
    counters: dict[str, int]
    topology: dict[str, Any]


# ---------------------------------------------------------------- on disk


def load(path: str) -> Receipt | None:
    """Return the receipt at I(path); None where there is none that can be believed: it has to be root's own."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = os.fstat(stream.fileno())
            if found.st_uid != 0 or found.st_mode & 0o077:
                return None
            content = json.load(stream)
        if content.pop("format") != FORMAT:
            return None
        return Receipt(**{**content, "look": Look(**content["look"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def note(path: str, receipt: Receipt) -> None:
    """Write a receipt, for root alone. Raises OSError."""
    content = {"format": FORMAT, **receipt._asdict(), "look": receipt.look._asdict()}
    _release.write(io.BytesIO(json.dumps(content, sort_keys=True).encode()), path, 0, 0, 0o600)


# ---------------------------------------------------------------- what differs


def differences(receipt: Receipt, declared: str, seen: Mapping[str, str]) -> list[str]:
    """Return why a host is not as it was left, or something else is wanted of it; a sentence each."""
    found = [] if receipt.declared == declared else ["something else is declared since"]
    for subject in sorted({*receipt.seen, *seen}):
        before, now = receipt.seen.get(subject, MISSING), seen.get(subject, MISSING)
        if before != now:
            found.append(difference(subject, before, now))
    return found


def difference(subject: str, before: str, now: str) -> str:
    """Return one difference as a sentence; digests say nothing to anybody, so they are left out."""
    if now == UNREADABLE:
        return f"{subject} can't be read any more"
    if MISSING in (before, now):
        return f"{subject} {'was not there' if before == MISSING else 'is not there any more'}"
    shown_before, shown = (re.sub(r"\b[0-9a-f]{16,64}\b", "", text).strip() for text in (before, now))
    if shown == shown_before:
        return f"{subject} is another"
    return f"{subject} is {shown}, was {shown_before}"


def of_modules(verdicts: Iterable[_plan.Verdict]) -> list[str]:
    """Return what is not as wanted with the modules, a sentence each."""
    return [
        f"module {verdict.name}: {verdict.verdict}: {'; '.join(verdict.differences)}"
        for verdict in verdicts
        if verdict.verdict not in _plan.GOOD
    ]


def unfinished(unit: str) -> list[str]:
    """Return what a rollout that did not come to its end, or is at work, has left."""
    found = []
    if os.path.lexists(_places.snapshot(unit)):
        found.append("a rollout that did not come to its end has left its snapshot")
    if os.path.lexists(_places.LOCK):
        found.append("a rollout holds its lock")
    return found


def salted(salt: str, *words: str) -> str:
    """Return a digest that tells nothing of what may be a secret, but whether it is the same."""
    return hashlib.sha256("\0".join([salt, *words]).encode("utf-8", "surrogateescape")).hexdigest()[:32]


# ---------------------------------------------------------------- what is there


def observe(run: _host.Run, login: Mapping[str, Any], look: Look, salt: str) -> Seen:
    """Look at everything once. Raises ServerError where the server can't be asked, and OSError."""
    directives = _conf.directives_of(look.conf_path)
    units = _units(run, [look.unit, *look.units])
    table, counters = _nft(run) if look.firewall else ("", {})
    client = _client.connect(login, _conf.renamed_command(directives, "CONFIG"))
    try:
        running = _observe.running(client, login)
        if not running.pid:
            running = running._replace(pid=_host.main_pid(units[look.unit]))
        state = {
            **_platform(),
            **_packages(run, look.packages),
            **_files([*look.files, *_unit_files(units)]),
            **_unit_states(units),
            **_process(look, running.pid),
            **_settings(client, salt),
            **_users(client, _conf.renamed_command(directives, "ACL"), salt),
        }
        present, absent = (
            [w.name for w in look.wanted if w.state == wanted_state] for wanted_state in ("present", "absent")
        )
        names = [module.name for module in running.modules]
        topology = _told.tell(client, running.info, names, present, absent, _told.addresses(run))
    finally:
        client.close()
    if look.firewall:
        state[NFT_TABLE] = salted(salt, table) if table else MISSING
    folder = _observe.Folder(look.folder, look.group, look.user, look.data_folder)
    verdicts = _observe.verdicts(running, look.wanted, folder)
    verdicts += _observe.strangers(running, look.wanted)
    return Seen(
        state,
        verdicts,
        running.info.get("redis_version", ""),
        counters,
        {**topology, "process": True},
    )


def _platform() -> dict[str, str]:
    """Return what the templates of redis.conf and the drop-in, and a binary, depend on."""
    facts = _host.facts_of_platform()
    return {name: str(facts[name]) for name in ("architecture", "libc", "cores", "online_cpus")}


def _packages(run: _host.Run, packages: Sequence[str]) -> dict[str, str]:
    versions = (_host.package_versions(run, packages) if packages else None) or {}
    return {f"package {name}": versions.get(name.split(":")[0], MISSING) for name in packages}


def _files(paths: Iterable[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        # Debian's redis-server is a link, to the program that is all of Redis.
        real = os.path.realpath(path)
        file = _host.file_state(real)
        link = f"a link to {real} " if os.path.islink(path) else ""
        found[path] = f"{link}{file.owner}:{file.group} {file.mode} {file.sha256}" if file else MISSING
    return found


UNIT_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "FragmentPath",
    "DropInPaths",
)


def _units(run: _host.Run, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what systemd knows of the units, by the names as given. Raises OSError where it does not tell."""
    code, out, err = run(["systemctl", "show", "-p", ",".join(UNIT_PROPERTIES), *names])
    blocks = out.strip().split("\n\n")
    if code != 0 or len(blocks) != len(names):
        raise OSError(f"systemctl show: {err.strip() or out.strip()}")
    return {
        name: dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for name, block in zip(names, blocks)
    }


def _unit_files(units: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the paths of the units' own files and of all their drop-ins, also those that others have laid."""
    found = [
        path
        for unit in units.values()
        for path in [unit.get("FragmentPath", ""), *unit.get("DropInPaths", "").split()]
        if path
    ]
    return list(dict.fromkeys(found))


def _unit_states(units: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    shown = ("LoadState", "ActiveState", "UnitFileState")
    return {
        f"unit {name}": " ".join(
            [*(unit.get(key, "") for key in shown), *(["stale"] if unit.get("NeedDaemonReload") == "yes" else [])]
        )
        for name, unit in units.items()
    }


def _process(look: Look, pid: int) -> dict[str, str]:
    """Return what the running process tells without being asked: its program, and what it was started with."""
    try:
        # The kernel says C( (deleted)) where the package has brought another one since.
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        program = UNREADABLE
    return {"program of the running server": program, "last start": _host.started_with(look.unit) or MISSING}


def _settings(client: _client.Client, salt: str) -> dict[str, str]:
    try:
        settings = client.settings()
    except _client.NotReachedError:
        raise
    except _client.ServerError:
        return {"settings": UNREADABLE}
    return {f"setting {name}": salted(salt, value) for name, value in settings.items() if name not in FAILOVERS}


def _users(client: _client.Client, acl_command: str, salt: str) -> dict[str, str]:
    try:
        users = client.users(acl_command)
    except _client.NotReachedError:
        raise
    except _client.ServerError:
        # Redis before 6.0 has none.
        return {"users": UNREADABLE}
    return {f"user {name}": salted(salt, *sorted(words)) for name, words in users.items()}


def _nft(run: _host.Run) -> tuple[str, dict[str, int]]:
    """Return the table in force, and what its counters have counted; empty where there is none, or no nft."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not nft:
        return "", {}
    # Not every host has a firewall of ours, and to read this takes a while.
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall

    table = [_firewall.FAMILY, _firewall.TABLE]
    code, out, _err = run([nft, "--stateless", "list", "table", *table])
    if code != 0:
        return "", {}
    _code, counted, _err = run([nft, "-j", "list", "counters", "table", *table])
    return _firewall.stateless(out), _firewall.counters(counted)


# ---------------------------------------------------------------- for the report


def confirmation(look: Look, seen: Seen) -> dict[str, Any]:
    """Return what redis_modules_confirm would tell of a host that is as wanted."""
    return {
        "confirmed": True,
        "error": "",
        "server_version": seen.server_version,
        "exposure": look.exposure,
        "verdicts": [verdict.as_dict() for verdict in seen.verdicts],
    }


def firewall(look: Look, seen: Seen) -> dict[str, Any]:
    """Return what redis_firewall would tell of a host that is as wanted; empty where it is nobody's business."""
    if not look.firewall:
        return {}
    return {**look.firewall, "differences": [], "in_force": True, "counters": seen.counters}
