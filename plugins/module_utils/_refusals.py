# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a rollout does not go on, all of it at once: what is declared wrongly, and what a host would lose."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _acl,
    _declaration,
    _firewall,
    _limits,
    _release,
    _settings,
)

ERRORS = (
    _acl.AclError,
    _declaration.DeclarationError,
    _firewall.FirewallError,
    _release.ReleaseError,
    _settings.SettingError,
)


def of_declaration(told: Mapping[str, Any]) -> list[str]:
    """Return all that is wrong with what is declared, as the roles would find it one after another.

    I(told) has C(modules) and their C(folder), C(releases) to go back to, the server's C(users) with C(requirepass),
    C(probe), C(aclfile) and C(login), C(renames), C(limits), and C(firewall) where there is one.
    """
    found: list[str] = []
    modules = _asked(found, lambda: _declaration.declared(told["modules"], told["folder"]))
    if modules is not None and told.get("releases"):
        found += _release.wanted_faults(modules, told["releases"])
    modules = modules or []
    present = [module for module in modules if module["state"] == "present"]
    _asked(
        found,
        lambda: _acl.lines(
            told["users"],
            present,
            requirepass=told["requirepass"],
            probe=told["probe"],
            aclfile=told["aclfile"],
            login=told["login"],
        ),
    )
    _asked(found, lambda: _settings.rename_lines(told["renames"], present))
    _asked(found, lambda: _limits.limit_lines(told["limits"]))
    if told.get("firewall"):
        _asked(found, lambda: _firewall.wanted(told["firewall"]))
    return found


def _asked(found: list[str], ask: Callable[[], Any]) -> Any:
    """Return what I(ask) says, or note why it refuses."""
    try:
        return ask()
    except ERRORS as error:
        found.append(str(error))
        return None


def of_host(looked: Mapping[str, Any], host: str, told: Mapping[str, Any]) -> list[str]:
    """Return why a host is to be left as it is, by what redis_modules_info has seen of it.

    I(looked) is its result, or that of a host which could not be reached. I(told) has the declared C(modules) (None
    where they are nobody's business), C(users), C(probe) (the name of the user that verifies), C(has_users) (whether
    redis.conf is going to name users), C(replicaof), C(releases) that modules are to go back to, and C(unseen), where a
    server that does not answer is to be taken as it is.
    """
    if looked.get("unreachable"):
        return [f"{host} can't be reached: {looked.get('msg', '')}"]
    server = looked["server"]
    found = _unanswered(server, host, told) if told.get("modules") is not None and not told.get("unseen") else []
    found += _losses(server, looked["modules"], host, told)
    if told.get("releases"):
        _asked(found, lambda: _release.artifacts(told["modules"], told["releases"], looked["releases"]))
    return found


def _unanswered(server: Mapping[str, Any], host: str, told: Mapping[str, Any]) -> list[str]:
    """Return why a server that does not answer is not touched.

    Where it does not answer as declared (it is stopped, or its port or login is what this run changes), the files that
    it has mapped and that its redis.conf loads tell which modules it runs.
    """
    if server["login_refused"]:
        why = (
            f"{host}: the server does not take the login ({server['error']}). Correct redis_server_requirepass or "
            "redis_modules_login; where this run changes the password, give the one until now as "
            "redis_server_current_password."
        )
        return [why]
    declared = [module["path"] for module in told["modules"]]
    foreign = [path for path in server["files"] if path not in declared]
    if server["running"] or not foreign:
        return []
    why = (
        f"{host}: the server does not answer as declared ({server['error']}), and runs or would load "
        f"{', '.join(foreign)}, which redis_modules does not name. Declare it, with state present or absent; or set "
        "redis_modules_login to how the server can be reached; or set redis_rollout_allow_unseen."
    )
    return [why]


def _losses(
    server: Mapping[str, Any], running: Sequence[Mapping[str, Any]], host: str, told: Mapping[str, Any]
) -> list[str]:
    """Return what would be lost on this host that nobody asked for."""
    found = []
    users = _acl.undeclared(server["users"], told["users"], told["probe"]) if told["has_users"] else []
    if users:
        found.append(
            f"{host}: the server has the users {', '.join(users)}, which redis_server_acl_users does not name; it "
            "would lose them. Declare them, with state present or absent."
        )
    follows = told.get("replicaof")
    own_data = server["running"] and not server["replicaof"] and server.get("key_count", 0) > 0
    if follows and not server["configured"] and own_data:
        found.append(
            f"{host}: the server holds {server['key_count']} keys of its own, and redis_server_replicaof would have it "
            f"take over those of {follows}. Empty it first, or run REPLICAOF on it yourself."
        )
    if told.get("modules") is None:
        return found
    declared = [module["name"] for module in told["modules"]]
    strangers = [module["name"] for module in running if not module["built_in"] and module["name"] not in declared]
    if strangers:
        found.append(
            f"{host} runs {', '.join(strangers)}, which redis_modules does not name. Its redis.conf would be written "
            "without it, and its data may need it. Declare it, with state present or absent."
        )
    return found


def first_results(variables: Sequence[Mapping[str, Any]], *paths: str) -> list[Any]:
    """Return for each host the first of these variables that it has, as C(A.B.C); an empty mapping where it has none.

    What a task of its own has found on one host is a step among others on another.
    """
    return [next((found for path in paths if (found := _at(own, path)) is not None), {}) for own in variables]


def _at(variables: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a path; None where nothing does."""
    names = path.split(".")
    found: Any = variables.get(names[0])
    for name in names[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
