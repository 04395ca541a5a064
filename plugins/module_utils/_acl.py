# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users of a server: from what is declared to C(user) lines of redis.conf, and to what a running server lacks.

The users stand in redis.conf itself, beside the C(loadmodule) lines: a rule that names a command of a module that is
not loaded keeps a server from starting, so both have to change in one rename. Redis reads them after the modules.
Passwords are written as their SHA-256 only, which is how Redis keeps them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _host, _settings

SINCE = (6, 0)
CHANNELS_SINCE = (6, 2)
"""Channel patterns (C(&*)) are unknown before."""

DEFAULT_USER = "default"
PROBE_RULES = ("-@all", "+hello", "+info")
"""What our own plugins need to verify a host, and nothing else."""

USER_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "enabled": {"type": "bool", "default": True},
    "passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "password_hashes": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "nopass": {"type": "bool", "default": False},
    "rules": {"type": "list", "elements": "str", "default": []},
}
"""The keys of an item of redis_server_acl_users; a unit test holds the role's argument_specs to them."""

_LOGIN_RULE = re.compile(r"[><#!].*|on|off|nopass|resetpass|reset")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class AclError(ValueError):
    """What is wrong with the declared users, for the operator: every fault, one a line, without a secret."""


class User(NamedTuple):
    """One user as redis.conf has it; I(words) are its rules."""

    name: str
    words: tuple[str, ...]


def digest(password: str) -> str:
    """Return a password as an ACL rule that does not show it."""
    return "#" + hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()


def lines(
    users: Sequence[Mapping[str, Any]],
    modules: Sequence[Mapping[str, Any]],
    requirepass: str = "",
    probe: Mapping[str, str] | None = None,
    aclfile: str = "",
    version: str = "",
    login: Mapping[str, Any] | None = None,
    withheld: Sequence[str] = (),
) -> list[str]:
    """Return the C(user) lines of redis.conf; none where nobody declares a user or restricts a command.

    I(modules) are those that are present, as in redis_modules. I(probe) has the name and the password of the user that
    this collection verifies with; there is none where the password is empty. I(version) is empty where it is not known
    yet. I(login) is how this collection is going to log in. I(withheld) are commands that nobody may run for now, as
    not all servers have them yet; where nobody declares a user, it has no effect. Raises AclError.
    """
    restricted = [module for module in modules if module.get("restricted_commands")]
    probed = bool(probe and probe.get("password"))
    if not users and not restricted and not probed:
        return []
    found = faults(users, restricted, requirepass, probe if probed else None)
    if not found and login is not None:
        found = lockouts(users, login)
    have = _host.version_tuple(version)
    if have and have < SINCE:
        found.append(
            f"Redis {version} knows no users: redis_server_acl_users, redis_server_probe_password and "
            "restricted_commands need 6.0 or later; before that, rename-command hides commands of the core"
        )
    if aclfile:
        found.append(
            f"users are declared, but redis_server_aclfile is {aclfile}, and Redis takes users from one place only: "
            "move its users to redis_server_acl_users, or leave all users to that file"
        )
    if found:
        raise AclError("\n".join(found))
    declared = [user for user in users if user.get("state", "present") != "absent"]
    if not any(user["name"] == DEFAULT_USER for user in declared):
        # As it is without any users.
        everything = ["~*", *(["&*"] if not have or have >= CHANNELS_SINCE else []), "+@all"]
        passwords: dict[str, Any] = {"passwords": [requirepass]} if requirepass else {"nopass": True}
        declared.insert(0, {"name": DEFAULT_USER, "rules": everything, **passwords})
    if probe and probed:
        declared.append({"name": probe["name"], "passwords": [probe["password"]], "rules": list(PROBE_RULES)})
    return [_line(user, restricted, withheld) for user in declared]


def _line(user: Mapping[str, Any], restricted: Sequence[Mapping[str, Any]], withheld: Sequence[str]) -> str:
    """Return the line of one valid user; who may run restricted commands is decided last, after its own rules."""
    words = ["on" if user.get("enabled", True) else "off"]
    words += ["nopass"] if user.get("nopass") else []
    words += [digest(str(password)) for password in user.get("passwords") or []]
    words += ["#" + str(value).lower() for value in user.get("password_hashes") or []]
    words += [word for rule in user.get("rules") or [] for word in str(rule).split()]
    for module in restricted:
        sign = "+" if user["name"] in (module.get("restricted_to") or []) else "-"
        words += [sign + str(command).lower() for command in module["restricted_commands"]]
    words += [f"-{command}" for command in withheld]
    return _settings.conf_line("user", [user["name"], *words])


def faults(
    users: Any,
    restricted: Sequence[Mapping[str, Any]],
    requirepass: str,
    probe: Mapping[str, str] | None,
) -> list[str]:
    """Return all that is wrong with the declared users, a sentence each."""
    found: list[str] = []
    if not isinstance(users, Sequence) or isinstance(users, str):
        return [f"redis_server_acl_users must be a list of users, not {type(users).__name__}"]
    for number, user in enumerate(users, start=1):
        if not isinstance(user, Mapping):
            found.append(f"redis_server_acl_users: item {number} must be a dictionary with a name")
            continue
        label = f"user {user.get('name') or 'number ' + str(number)}"
        found += [f"{label}: {fault}" for fault in _user_faults(user)]
    if found:
        return found
    names = [str(user["name"]) for user in users]
    names += [probe["name"]] if probe else []
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"user {name}: it is declared {names.count(name)} times; give each user one item")
    if requirepass and DEFAULT_USER in names:
        found.append(
            "user default: its password is declared twice; give it in redis_server_acl_users and leave "
            "redis_server_requirepass empty"
        )
    known = {str(user["name"]) for user in users if user.get("state", "present") != "absent"} | {DEFAULT_USER}
    for module in restricted:
        for name in module.get("restricted_to") or []:
            if name not in known:
                found.append(
                    f"module {module['name']}: restricted_to names the user {name}, which redis_server_acl_users does "
                    "not declare"
                )
    return found


def lockouts(users: Sequence[Mapping[str, Any]], login: Mapping[str, Any]) -> list[str]:
    """Return why this collection could not log in to a server with these users any more."""
    name = str(login.get("login_user") or DEFAULT_USER)
    user = next((user for user in users if user["name"] == name and user.get("state") != "absent"), None)
    mend = "declare in redis_modules_login an administrator of redis_server_acl_users"
    if user is None:
        declared = name == DEFAULT_USER
        return [] if declared else [f"user {name}: redis_modules_login names it, but nobody declares it; {mend}"]
    if not user.get("enabled", True):
        return [f"user {name}: a rollout logs in as it, and it is disabled; {mend}"]
    hashes = {"#" + str(value).lower() for value in user.get("password_hashes") or []}
    hashes |= {digest(str(password)) for password in user.get("passwords") or []}
    if hashes and digest(str(login.get("login_password") or "")) not in hashes:
        return [f"user {name}: a rollout logs in as it, and the password that it has is none of the user's; {mend}"]
    return []


def _user_faults(user: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one user by itself; what is a secret is not shown."""
    found = _key_faults(user)
    if found:
        return found
    if not re.fullmatch(r"[^\s\x00-\x1f]+", str(user.get("name") or "")):
        found.append("the name must be one word")
    if user.get("state") == "absent":
        if user.get("name") == DEFAULT_USER:
            found.append("Redis always has it; set enabled: false to keep everybody from using it")
        return found
    words = [word for rule in user.get("rules") or [] for word in str(rule).split()]
    for word in filter(_LOGIN_RULE.fullmatch, words):
        kind = "a password rule" if word[0] in "><#!" else repr(word)
        found.append(f"rules holds {kind}; use enabled, nopass, passwords or password_hashes")
    return found + _password_faults(user)


def _key_faults(user: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the keys of one user and the types of their values."""
    found = [
        f"unknown key {key!r}; the keys are {', '.join(USER_OPTIONS)}" for key in user if str(key) not in USER_OPTIONS
    ]
    for key, spec in USER_OPTIONS.items():
        value = user.get(key)
        if value is None:
            continue
        if spec["type"] == "list" and (not isinstance(value, Sequence) or isinstance(value, str)):
            found.append(f"{key} must be a list")
        elif spec["type"] == "bool" and not isinstance(value, bool):
            found.append(f"{key} must be true or false")
        elif "choices" in spec and value not in spec["choices"]:
            found.append(f"{key} must be {' or '.join(spec['choices'])}")
    return found


def _password_faults(user: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with how one user logs in."""
    found = [
        "password_hashes must hold SHA-256 digests, 64 hexadecimal digits each"
        for value in user.get("password_hashes") or []
        if not _SHA256.fullmatch(str(value).lower())
    ]
    secrets = [*(user.get("passwords") or []), *(user.get("password_hashes") or [])]
    if any(str(secret) == "" for secret in secrets):
        found.append("a password is empty")
    if secrets and user.get("nopass"):
        found.append("it has a password, but nopass lets everybody in without")
    if not secrets and not user.get("nopass") and user.get("enabled", True):
        found.append("it has no password, so nobody could log in; give it one, or set nopass or enabled: false")
    return found


# What a running server has


class Changes(NamedTuple):
    """What makes the users of a running server those of its redis.conf: whom to set, and whom to delete."""

    set: list[User]
    delete: list[str]

    @property
    def names(self) -> list[str]:
        """Return the users that change."""
        return [user.name for user in self.set] + self.delete


def users_of(directives: Sequence[_conf.Directive]) -> list[User]:
    """Return the users of a redis.conf."""
    return [User(d.args[0], d.args[1:]) for d in directives if d.name == "user" and d.args]


def changes(
    wanted: Sequence[User], tried: Mapping[str, Sequence[str]], running: Mapping[str, Sequence[str]]
) -> Changes:
    """Compare what ACL LIST says of a throwaway server with these users, and of the running one.

    The same binary writes both, so any way of writing a rule compares right. Nothing is wanted where redis.conf names
    no user: then they are the business of somebody else.
    """
    if not wanted:
        return Changes([], [])
    return Changes(
        [user for user in wanted if not _same(running.get(user.name), tried.get(user.name))],
        sorted(name for name in running if name not in {user.name for user in wanted} | {DEFAULT_USER}),
    )


def _same(one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Whether two rules are the same; ACL LIST does not keep the order of words (before Redis 8.0)."""
    return one is not None and other is not None and sorted(one) == sorted(other)


def commands(changes_: Changes) -> list[list[str]]:
    """Return the commands that make the changes, without the name of the command ACL itself."""
    setting = [["SETUSER", user.name, "reset", *user.words] for user in changes_.set]
    return setting + [["DELUSER", name] for name in changes_.delete]


def back(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> Changes:
    """Return what brings the users of a running server back to what ACL LIST said of them before."""
    return Changes(
        [User(name, tuple(words)) for name, words in sorted(before.items()) if not _same(now.get(name), words)],
        sorted(set(now) - set(before)),
    )


def undeclared(running: Sequence[str] | None, users: Sequence[Mapping[str, Any]], probe: str) -> list[str]:
    """Return the users of a running server that nobody declares, present or absent."""
    names = {str(user["name"]) for user in users} | {DEFAULT_USER, probe}
    return [name for name in running or [] if name not in names]


def withholding(users: Mapping[str, Sequence[str]], commands: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the words after ACL that keep all users from these commands, for those that are not kept from them yet.

    I(users) are the words of each user's rule, as Client.users() returns them.
    """
    denied = [f"-{command}" for command in commands]
    return [
        ("SETUSER", name, *missing)
        for name, words in users.items()
        for missing in [[word for word in denied if word not in words]]
        if missing
    ]
