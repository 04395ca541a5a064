# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user declares in C(redis_modules), checked and completed.

One place for it: the filter, the actions and the modules of this collection all read entries through here.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Mapping, Sequence

ORIGINS = ("src", "artifact")
BUILD_KEYS = ("sources", "include_dirs", "defines", "cflags", "ldflags", "libraries")
MAKE_KEYS = ("make_target", "make_output", "make_args")

RISKS = ("delete_keys", "executable_stack", "missing_api", "outside_memory", "processes", "text_relocations")
"""What a rollout refuses unless a module's entry accepts it by name."""

MODULE_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "src": {"type": "str"},
    "sources": {"type": "list", "elements": "str", "default": []},
    "include_dirs": {"type": "list", "elements": "str", "default": []},
    "defines": {"type": "list", "elements": "str", "default": []},
    "cflags": {"type": "list", "elements": "str", "default": []},
    "ldflags": {"type": "list", "elements": "str", "default": []},
    "libraries": {"type": "list", "elements": "str", "default": []},
    "make_target": {"type": "str"},
    "make_output": {"type": "str"},
    "make_args": {"type": "list", "elements": "str", "default": []},
    "artifact": {"type": "str"},
    "sha256": {"type": "str"},
    "path": {"type": "str"},
    "args": {"type": "list", "elements": "str", "default": []},
    "config": {"type": "dict", "default": {}},
    "version": {"type": "int"},
    "smoke": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "command": {"type": "list", "elements": "str", "required": True},
            "expect": {"type": "raw"},
            "query": {"type": "str"},
            "after_restart": {"type": "bool"},
        },
    },
    "restricted_commands": {"type": "list", "elements": "str", "default": []},
    "restricted_to": {"type": "list", "elements": "str", "default": []},
    "strategy": {"type": "str", "choices": ["restart", "hot", "hot_or_restart"], "default": "restart"},
    "accept": {"type": "list", "elements": "str", "default": [], "choices": list(RISKS)},
}
"""The keys of an entry. The roles' argument_specs say the same to the user; a unit test holds them together."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DeclarationError(ValueError):
    """What is wrong with C(redis_modules), for the operator: every fault, one a line."""


def declared(entries: Any, folder: str) -> list[dict[str, Any]]:
    """Return the entries of C(redis_modules) with every key filled in, in the same order.

    I(folder) is where modules lie on a host; each entry's C(path) is made absolute by it.

    Raises DeclarationError with all faults at once; each names the module, what was found and what to do.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, (str, bytes)):
        raise DeclarationError(f"redis_modules must be a list of modules, not {type(entries).__name__}")
    faults: list[str] = []
    modules: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            faults.append(f"redis_modules[{number}] must be a dictionary with a name, not {entry!r}")
            continue
        label = f"module {entry.get('name') or 'number ' + str(number)}"
        found = entry_faults(entry) or path_faults(entry, folder)
        faults += [f"{label}: {fault}" for fault in found]
        if not found:
            modules.append(completed(entry, folder))
    for key in ("name", "path"):
        values = [str(module[key]) for module in modules]
        for value in sorted({v for v in values if values.count(v) > 1}):
            faults.append(
                f"module {key} {value}: it is declared {values.count(value)} times; give each module one entry"
            )
    if faults:
        raise DeclarationError("\n".join(faults))
    return modules


def completed(entry: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return a valid entry with every key of MODULE_OPTIONS, defaults where it says nothing."""
    module: dict[str, Any] = {}
    for key, spec in MODULE_OPTIONS.items():
        value = entry.get(key)
        if value is None:
            default = spec.get("default")
            module[key] = (
                list(default) if isinstance(default, list) else dict(default) if isinstance(default, dict) else default
            )
        elif key == "smoke":
            module[key] = [_completed_smoke(item) for item in value]
        elif spec["type"] == "list":
            module[key] = [setting_text(item) for item in value]
        elif spec["type"] == "int":
            module[key] = int(value)
        elif spec["type"] == "dict":
            module[key] = {str(k): setting_text(v) for k, v in value.items()}
        else:
            module[key] = str(value)
    if module["sha256"]:
        module["sha256"] = module["sha256"].lower()
    module["path"] = posixpath.normpath(posixpath.join(folder, module["path"] or module["name"] + ".so"))
    module["config"] = {directive_name(module["name"], key): value for key, value in module["config"].items()}
    return module


def _completed_smoke(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return one smoke command with the keys that it has; without expect, any answer but an error will do."""
    return {**item, "command": [setting_text(word) for word in item["command"]]}


def directive_name(module: str, key: str) -> str:
    """Return a module's own directive as redis.conf names it: MODULE.KEY, unless it has a dot already."""
    return key if "." in key else f"{module}.{key}"


def setting_text(value: Any) -> str:
    """Return a directive's value as redis.conf writes it: YAML's true and false are yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def entry_faults(entry: Mapping[str, Any]) -> list[str]:
    """Return all that is wrong with one entry by itself."""
    faults: list[str] = []
    for key in entry:
        if key not in MODULE_OPTIONS:
            faults.append(f"unknown key {key!r}; the keys are {', '.join(MODULE_OPTIONS)}")
    for key, spec in MODULE_OPTIONS.items():
        faults += _type_faults(key, spec["type"], entry.get(key))
    if faults:
        return faults
    name = str(entry.get("name") or "")
    if not _NAME.fullmatch(name):
        faults.append(f"name {name!r} must be letters, digits, _ . or -, as MODULE LIST reports it")
    for key in ("state", "strategy"):
        choices = MODULE_OPTIONS[key]["choices"]
        if entry.get(key) and entry[key] not in choices:
            faults.append(f"{key} {entry[key]!r} must be {', '.join(choices[:-1])} or {choices[-1]}")
    faults += [
        f"accept: {risk!r} is none of {', '.join(RISKS)}" for risk in entry.get("accept") or [] if risk not in RISKS
    ]
    for item in entry.get("smoke") or []:
        faults += _smoke_faults(item)
    if entry.get("state") == "absent":
        return faults
    return faults + _restriction_faults(entry) + _origin_faults(entry) + _text_faults(entry)


def _type_faults(key: str, wanted: str, value: Any) -> list[str]:
    if value is None:
        return []
    if wanted == "list" and (not isinstance(value, Sequence) or isinstance(value, (str, bytes))):
        return [f"{key} must be a list, not {value!r}"]
    if wanted == "list" and key != "smoke":
        return [
            f"{key} holds {item!r}; each item must be text"
            for item in value
            if item is None or isinstance(item, (Mapping, list))
        ]
    if wanted == "dict" and not isinstance(value, Mapping):
        return [f"{key} must be a dictionary, not {value!r}"]
    if wanted == "dict":
        return [
            f"{key}: {name!r} must have one value, as text or number, not {item!r}"
            for name, item in value.items()
            if item is None or isinstance(item, (Mapping, list)) or not re.fullmatch(r"\S+", str(name))
        ]
    if wanted == "int" and not re.fullmatch(r"-?\d+", str(value)):
        return [f"{key} must be a whole number as MODULE LIST reports it, not {value!r}"]
    if wanted == "str" and isinstance(value, (Mapping, list)):
        return [f"{key} must be text, not {value!r}"]
    return []


def _smoke_faults(item: Any) -> list[str]:
    """Return what is wrong with one smoke command."""
    options = MODULE_OPTIONS["smoke"]["options"]
    if not isinstance(item, Mapping) or not item.get("command"):
        return [f"smoke holds {item!r}; each item needs a command, as a list of words"]
    faults = [f"smoke: unknown key {key!r}; the keys are {', '.join(options)}" for key in item if key not in options]
    words = item["command"]
    if not isinstance(words, Sequence) or isinstance(words, str):
        return [*faults, f"smoke: the command {words!r} must be a list of words"]
    if any(word is None or isinstance(word, (Mapping, list)) for word in words):
        faults.append(f"smoke: each word of {words!r} must be text")
    if item.get("query") and "expect" not in item:
        faults.append(f"smoke: the query {item['query']!r} needs what to expect of it")
    return faults


def _restriction_faults(entry: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the commands that only some users may run."""
    faults = [
        f"restricted_commands: {command!r} must be the name of one command"
        for command in entry.get("restricted_commands") or []
        if not re.fullmatch(r"[^\s@+~&|-][^\s|]*(\|[^\s|]+)?", str(command))
    ]
    if entry.get("restricted_to") and not entry.get("restricted_commands"):
        faults.append("restricted_to names users, but restricted_commands no command that they alone may run")
    return faults


def _origin_faults(entry: Mapping[str, Any]) -> list[str]:
    given = [key for key in ORIGINS if entry.get(key)]
    if len(given) != 1:
        return [f"give exactly one of src (C sources) or artifact (a built .so), not {' and '.join(given) or 'none'}"]
    faults = []
    if entry.get("artifact"):
        faults += [f"{key} goes with src, not with artifact" for key in BUILD_KEYS + MAKE_KEYS if entry.get(key)]
        if not _SHA256.fullmatch(str(entry.get("sha256") or "").lower()):
            faults.append("artifact needs its sha256 (64 hexadecimal digits; the command sha256sum prints it)")
        return faults
    if entry.get("sha256"):
        faults.append("sha256 goes with artifact, not with src: what is built is known by its sources")
    if entry.get("make_target") or entry.get("make_output") or entry.get("make_args"):
        faults += [
            f"{key} is the Makefile's own business; leave it out beside make_target"
            for key in BUILD_KEYS
            if entry.get(key)
        ]
        if not entry.get("make_output"):
            faults.append("make_target needs make_output, the .so that it leaves, relative to src")
        if not entry.get("make_target"):
            faults.append("make_output and make_args need make_target")
    for key in ("sources", "include_dirs", "make_output"):
        value = entry.get(key) or []
        for path in [value] if isinstance(value, str) else value:
            if outside(str(path)):
                faults.append(f"{key}: {path!r} must lie below src")
    return faults


def outside(path: str) -> bool:
    """Whether a relative path leaves the folder that it is relative to."""
    normal = posixpath.normpath(path)
    return posixpath.isabs(normal) or normal == ".." or normal.startswith("../")


def _text_faults(entry: Mapping[str, Any]) -> list[str]:
    faults = []
    for key in ("cflags", "ldflags"):
        for flag in entry.get(key) or []:
            if " -" in str(flag):
                faults.append(f"{key}: {flag!r} looks like several flags; give each its own item")
    for define in entry.get("defines") or []:
        if str(define).startswith("-D") or not re.match(r"[A-Za-z_]\w*(=|\(|$)", str(define)):
            faults.append(f"defines: {define!r} must be NAME or NAME=VALUE")
    for library in entry.get("libraries") or []:
        if str(library).startswith("-"):
            faults.append(f"libraries: {library!r} must be the bare name, as m or crypto")
    for key in ("args", "defines"):
        if any("\0" in str(item) for item in entry.get(key) or []):
            faults.append(f"{key}: a NUL character can't be passed on")
    return faults


def path_faults(entry: Mapping[str, Any], folder: str) -> list[str]:
    """Return what is wrong with where an entry wants its file: it lies in the module folder itself, as a .so."""
    if not posixpath.isabs(folder):
        return [f"the module folder {folder!r} must be an absolute path"]
    if not entry.get("path"):
        return []
    path = posixpath.normpath(posixpath.join(folder, str(entry["path"])))
    if posixpath.dirname(path) != posixpath.normpath(folder):
        return [f"path {path} lies outside the module folder {folder}; the server may run code from that folder only"]
    if not path.endswith(".so"):
        return [f"path {path} must end in .so"]
    return []


def names_by_state(entries: Any) -> dict[str, list[str]]:
    """Return the names of the modules that are declared to be present, as C(modules), and C(absent).

    It never raises: what is no entry is left out, for declared() to find.
    """
    named = [e for e in entries if isinstance(e, Mapping) and "name" in e] if isinstance(entries, list) else []
    absent = [str(entry["name"]) for entry in named if entry.get("state") == "absent"]
    return {"modules": [str(e["name"]) for e in named if str(e["name"]) not in absent], "absent": absent}


def wanted_of_host(
    modules: Sequence[Mapping[str, Any]], conf_path: str, unit: str, handover: bool = False
) -> dict[str, Any]:
    """Return what the steps of a change take of the declared modules, each with its artifact, and which files change.

    Why it is to be told before whether the server has to start again: modules may change without, or it comes to a
    I(handover). A list, as releases of ansible-core make texts of what stands alone in a template.
    """
    dropin = f"/etc/systemd/system/{unit}.d/50-edgeops-redis-modules.conf"
    return {
        "all": list(modules),
        "present": [module for module in modules if module["state"] == "present"],
        "absent": [module for module in modules if module["state"] == "absent"],
        "forecast": (["handover"] if handover else []) + [m["name"] for m in modules if m["strategy"] != "restart"],
        "files": [conf_path, dropin, *(module["path"] for module in modules)],
        "dropin_path": dropin,
    }
