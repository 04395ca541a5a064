# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role redis_server decides about redis.conf, by the version and the size of a host."""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _declaration, _host

IO_THREADS_MOST = 8
"""redis.conf says that more hardly ever help."""

REFUSED_DIRECTIVES = {
    "loadmodule": "declare the module in redis_modules",
    "include": "CONFIG REWRITE copies what is included into redis.conf, and the server does not start again; "
    "give its directives here",
    "user": "declare the user in redis_server_acl_users",
    "daemonize": "systemd runs the server",
    "supervised": "systemd runs the server",
}
"""Directives that extra directives may not hold, with what to do instead."""


class SettingError(ValueError):
    """A setting that can't be; the text is for the operator."""


def io_threads(wanted: Any, cores: int, version: str) -> int:
    """Return the number of I/O threads: a number as it is, C(auto) by redis.conf's own guidance.

    That is none besides the main thread below 4 cores, two cores spare from 4 (one from Redis 8.0 with 8 cores or
    more), at most 8. I(version) is empty where Redis is not installed yet. Raises SettingError.
    """
    have = _host.version_tuple(version)
    if str(wanted) == "auto":
        if (have and have < (6,)) or cores < 4:
            return 1
        spare = 1 if have >= (8,) and cores >= 8 else 2
        return min(IO_THREADS_MOST, cores - spare)
    try:
        number = int(wanted)
    except (TypeError, ValueError):
        raise SettingError(f"redis_server_io_threads must be auto or a number, not {wanted!r}") from None
    if not 1 <= number <= 128:
        raise SettingError(f"redis_server_io_threads must lie between 1 and 128, not {number}")
    if number > 1 and have and have < (6,):
        raise SettingError(f"redis_server_io_threads is {number}, but Redis {version} has none; they come with 6.0")
    return number


def extra_lines(extra: Mapping[str, Any], own: Sequence[str]) -> list[str]:
    """Return extra directives as lines of redis.conf; each value is the rest of a line, a list is several lines.

    I(own) are the directives that the template writes by itself. Raises SettingError with all faults.
    """
    lines: list[str] = []
    faults: list[str] = []
    for name, value in extra.items():
        directive = str(name).lower()
        if directive in REFUSED_DIRECTIVES:
            faults.append(f"{directive} can't be an extra directive: {REFUSED_DIRECTIVES[directive]}")
        elif directive in own:
            faults.append(f"{directive} has a variable of its own: set redis_server_{directive.replace('-', '_')}")
        elif not re.fullmatch(r"[a-z0-9][^\s#\"']*", directive):
            faults.append(f"{name!r} is no name of a directive")
        else:
            for item in value if isinstance(value, list) else [value]:
                text = "" if item is None else _declaration.setting_text(item)
                line = f"{directive} {text}"
                try:
                    if "\n" in line or len(_conf.split(line)) < 2:
                        raise _conf.ConfError('it needs a value; an empty one is written as ""')
                    lines.append(line)
                except _conf.ConfError as error:
                    faults.append(f"{directive}: {error}")
    if faults:
        raise SettingError("redis_server_extra_directives: " + "; ".join(faults))
    return lines


def own_login(server: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to log in to a server as its own configuration lets the default user in.

    I(server) holds C(port), C(tls_port), C(unixsocket), C(password), C(current_password), C(ca_certs), C(cert_file) and
    C(key_file), of which each may be missing or empty. TLS and the unix socket are used where there is no other port.
    """
    login: dict[str, Any] = {
        "login_password": server.get("password"),
        "login_current_password": server.get("current_password"),
    }
    port, tls_port = int(server.get("port") or 0), int(server.get("tls_port") or 0)
    if port:
        login["login_port"] = port
    elif tls_port:
        login.update(
            login_port=tls_port,
            tls=True,
            ca_certs=server.get("ca_certs"),
            client_cert_file=server.get("cert_file"),
            client_key_file=server.get("key_file"),
        )
    else:
        login["login_unix_socket"] = server.get("unixsocket")
    return {name: value for name, value in login.items() if value}


def rename_lines(renames: Mapping[str, Any], modules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the C(rename-command) lines; each of I(renames) is a command and its new name, empty to take it away.

    Raises SettingError where one is a command of a declared module: Redis renames before it loads modules, and would
    not start.
    """
    faults = []
    for command in renames:
        for module in modules:
            if str(command).lower().startswith(f"{module['name']}.".lower()):
                faults.append(
                    f"redis_server_rename_commands: {command} is a command of the module {module['name']}, which can't "
                    "be renamed, as Redis would not start; list it in restricted_commands of the module's entry, and "
                    "in restricted_to the users that may run it"
                )
    if faults:
        raise SettingError("\n".join(faults))
    return [conf_line("rename-command", [command, name]) for command, name in renames.items()]


def conf_line(name: str, args: Any) -> str:
    """Return one line of redis.conf with each argument quoted where it has to be."""
    values = list(args) if isinstance(args, (list, tuple)) else [args]
    return _conf.render([_conf.Directive(name, tuple(_declaration.setting_text(v) for v in values))]).rstrip("\n")


def module_lines(modules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return loadmodule and the modules' own directives, in the order in which they were declared.

    Where CONFIG REWRITE would spoil a loadmodule line, a comment before it keeps it for the next start (see _unit).
    """
    present = [module for module in modules if module["state"] == "present"]
    loads = [_conf.Directive("loadmodule", (module["path"], *module["args"])) for module in present]
    spoils = _conf.rewrite_spoils(loads)
    lines = []
    for module, load in zip(present, loads):
        line = _conf.render([load]).rstrip("\n")
        lines += [_conf.KEPT + line, line] if spoils else [line]
        config: dict[str, str] = module["config"]
        lines += [conf_line(name, value) for name, value in config.items()]
    return lines
