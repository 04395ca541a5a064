# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of this collection: thin covers over module_utils, which hold the decisions."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from typing import TYPE_CHECKING, Any, Callable, Mapping

from ansible.errors import AnsibleFilterError
from ansible.executor.process.worker import WorkerProcess
from ansible.utils.display import Display

PACKAGE = "ansible_collections.edgeops.redis_modules.plugins.module_utils"


CONTROLLERS = "ansible_collections.edgeops.redis_modules.plugins.plugin_utils"
PARTS_OF_A_LOOK = (f"{PACKAGE}._declared", f"{CONTROLLERS}._kept")
PARTS_OF_A_CHANGE = (
    *(f"{PACKAGE}.{name}" for name in ("_acl", "_gates", "_instances", "_limits", "_lock", "_preflight", "_refusals")),
    *(f"{PACKAGE}.{name}" for name in ("_release", "_report", "_settings", "_waves")),
    f"{CONTROLLERS}._looking",
)
"""What actions and filters stand on at the first look, and where hosts are changed.

Each task of each host is a fork of the process that works out a play's keywords. What that has not brought in, each of
them brings in for itself, and compiles it anew, as Ansible keeps no bytecode of collections.
"""


class Part:
    """A module of module_utils that is brought in when it is used.

    Ansible reads this file for the first filter that it meets, and a pass that finds nothing to do needs few of them:
    to bring in all that they stand on takes as long as several of its hosts do.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(f"{PACKAGE}.{self._name}"), attribute)


if TYPE_CHECKING:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
        _acl,
        _build,
        _builders,
        _declaration,
        _firewall,
        _gates,
        _instances,
        _limits,
        _lock,
        _preflight,
        _publish,
        _pull,
        _refusals,
        _release,
        _report,
        _settings,
        _waves,
    )
else:
    _acl = Part("_acl")
    _build = Part("_build")
    _builders = Part("_builders")
    _declaration = Part("_declaration")
    _firewall = Part("_firewall")
    _gates = Part("_gates")
    _instances = Part("_instances")
    _limits = Part("_limits")
    _lock = Part("_lock")
    _preflight = Part("_preflight")
    _publish = Part("_publish")
    _pull = Part("_pull")
    _refusals = Part("_refusals")
    _release = Part("_release")
    _report = Part("_report")
    _settings = Part("_settings")
    _waves = Part("_waves")


def bring_in(parts: tuple[str, ...]) -> None:
    """Import what forks of this process are going to ask for."""
    for part in parts:
        importlib.import_module(part)


def speaking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter's own errors reach the operator as they are."""

    def filter_function(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if type(error).__module__.startswith(PACKAGE):
                raise AnsibleFilterError(str(error)) from error
            raise

    return filter_function


def cover(part: Any, name: str) -> Callable[..., Any]:
    """Return a filter that is a function of module_utils."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(part, name)(*args, **kwargs)

    return speaking(call)


def with_artifacts(modules: list[dict[str, Any]], artifacts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each module with the artifact and its digest that this host has for it, where it has one."""
    merged = []
    for module in modules:
        found = artifacts.get(module["name"]) or {}
        merged.append(
            {**module, "artifact": found.get("path") or None, "sha256": found.get("sha256") or module.get("sha256")}
        )
    return merged


def going_back(modules: list[dict[str, Any]], releases: Mapping[str, str], folder: str) -> list[dict[str, Any]]:
    """Return the declared modules without the version of those in I(releases), as that is another release's.

    Raises DeclarationError, and ReleaseError with all that is wrong with I(releases).
    """
    faults = _release.wanted_faults(_declaration.declared(modules, folder), releases)
    if faults:
        raise _release.ReleaseError("\n".join(faults))
    return [{**module, "version": None} if module["name"] in releases else module for module in modules]


def build_plan(
    looks: Mapping[str, Any],
    on: str = "target",
    builders: list[dict[str, Any]] | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return each host's share of building, from what was seen of the hosts and of the builders.

    With the plan of I(before), only what hosts that were lost under way have left to do.
    """
    came = {host: look for host, look in looks.items() if look and "wanted" in look}
    seen = {result["item"]: result for result in builders or [] if "platform" in result}
    silent = {r["item"]: str(r.get("msg", "")) for r in builders or [] if r["item"] not in seen}
    wishes = _builders.Wishes(on, seen, silent)
    return _builders.anew(before, came, wishes) if before else _builders.plan(came, wishes)


def without_header(modules: list[dict[str, Any]], folders: list[str]) -> list[str]:
    """Return the names of the modules whose sources, looked for in I(folders), hold no redismodule.h."""
    names = []
    for module in modules:
        folder = _build.locate(module["src"], folders)
        if folder is None or not any(os.path.basename(f) == "redismodule.h" for f in _build.source_files(folder)):
            names.append(module["name"])
    return names


def on_controller(path: str, folders: list[str]) -> str:
    """Return the absolute path of a file on the controller that is looked for in I(folders)."""
    found = _build.locate(path, folders)
    if found is None:
        raise AnsibleFilterError(f"there is no {path} on the controller; looked in {', '.join(_build.search(folders))}")
    return found


def only(modules: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Return each module with these keys alone: what a plugin takes."""
    return [{key: module[key] for key in keys if key in module} for module in modules]


def firewall_wanted(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is declared of the firewall, checked. Raises FirewallError with all that is wrong with it."""
    return _firewall.wanted(declared)._asdict()


def io_threads(wanted: Any, cores: int, version: str, limits: Mapping[str, Any] | None = None) -> int:
    """Return the number of I/O threads for the cores that the service gets. Raises SettingError."""
    return _settings.io_threads(wanted, _limits.usable_cores(cores, limits or {}), version)


def limit_lines(limits: Mapping[str, Any]) -> list[str]:
    """Return the lines of the drop-in for the limits, and warn of what may end badly."""
    for warning in _limits.limit_warnings(limits):
        Display().warning(warning)
    return _limits.limit_lines(limits)


def declared_faults(told: Mapping[str, Any]) -> list[str]:
    """Return all that is wrong with what is declared, and warn of what may end badly."""
    for warning in _limits.limit_warnings(told["limits"]):
        Display().warning(warning)
    return _refusals.of_declaration(told)


def rollout_plan(told: Mapping[str, Any], **wishes: Any) -> dict[str, Any]:
    """Return in which waves a fleet can be changed, what stands against it, and both as text. Raises WavesError.

    I(settled) among the wishes is what the servers of hosts told that this run leaves as they are.
    """
    settled = {host: server for host, server in (wishes.pop("settled", None) or {}).items() if server}
    planned = _waves.plan({**told, **settled}, _waves.Wishes(settled=tuple(settled), **wishes))
    waves = [[{**step._asdict(), "wave": number} for step in wave] for number, wave in enumerate(planned.waves, 1)]
    turning = [
        step.host for wave in planned.waves for step in wave if step.handover_to or step.withheld or step.leaving
    ]
    told_of_it = {"faults": planned.faults, "warnings": planned.warnings, "lines": _waves.lines(planned)}
    return {"waves": waves, "turning": turning, **told_of_it}


def receipts_told(hosts: list[str], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """Return which hosts are not as wanted, and what the operator reads of all of them.

    Where all are, that is the report of the fleet as well.
    """
    found = {host: hostvars[host].get("redis_receipt_found") or {} for host in hosts}
    said = _report.first_look(found)
    table: list[str] = []
    if not said.others:
        confirmations, firewalls = ({host: r[key] for host, r in found.items()} for key in ("confirmation", "firewall"))
        table = _report.table(_report.rows(hosts, confirmations, None, firewalls)).splitlines()
    return {"others": said.others, "lines": table + said.lines}


def host_pattern(hosts: str | list[str]) -> str:
    """Return which hosts a play is for, as its keyword C(hosts) takes it. Raises where nobody is named."""
    pattern = hosts if isinstance(hosts, str) else ",".join(hosts)
    if not pattern.strip():
        raise AnsibleFilterError(
            "redis_hosts names nobody; give a group, a pattern or a list of them, or leave it away"
        )
    bring_in(PARTS_OF_A_LOOK)
    return pattern


def group_pattern(name: str, groups: Mapping[str, list[str]]) -> str:
    """Return a group as the keyword C(hosts) of a play takes it; nobody where there is no such group."""
    if name not in groups:
        return "all:!all"
    bring_in(PARTS_OF_A_CHANGE)
    return name


def run_owner(who: str = "") -> dict[str, Any]:
    """Return what a lock says of its owner, for the ansible-playbook that runs this."""
    # Tasks are templated in workers that it forks, for each host and task another; some templates in itself.
    parent = multiprocessing.parent_process()
    forked = isinstance(multiprocessing.current_process(), WorkerProcess)
    return _lock.run_owner(parent.pid if forked and parent and parent.pid else os.getpid(), who)


def from_repository(modules: list[dict[str, Any]], tree: str, platform: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the modules with the artifacts of the fleet's repository at I(tree) in the place of their sources.

    Raises AnsibleFilterError where none fits this platform.
    """
    told = _pull.read_json(os.path.join(tree, _pull.MANIFEST))
    try:
        return _pull.from_repository(modules, told.get("artifacts", []), platform, tree)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "declared_modules": cover(_declaration, "declared"),
            "names_by_state": cover(_declaration, "names_by_state"),
            "wanted_of_host": cover(_declaration, "wanted_of_host"),
            "with_artifacts": with_artifacts,
            "only_keys": only,
            "build_plan": build_plan,
            "builders_named": cover(_builders, "named"),
            "may_build": cover(_builders, "likely"),
            "going_back": speaking(going_back),
            "release_artifacts": cover(_release, "artifacts"),
            "without_header": without_header,
            "on_controller": on_controller,
            "acl_lines": cover(_acl, "lines"),
            "conf_line": cover(_settings, "conf_line"),
            "module_lines": cover(_settings, "module_lines"),
            "extra_lines": cover(_settings, "extra_lines"),
            "own_login": cover(_settings, "own_login"),
            "rename_lines": cover(_settings, "rename_lines"),
            "undeclared_users": cover(_acl, "undeclared"),
            "firewall_wanted": speaking(firewall_wanted),
            "firewall_peers": cover(_firewall, "peers"),
            "instance_faults": cover(_instances, "faults"),
            "host_pattern": host_pattern,
            "group_pattern": group_pattern,
            "receipts_told": receipts_told,
            "run_owner": run_owner,
            "dead_runs": cover(_lock, "dead_runs"),
            "rollout_plan": speaking(rollout_plan),
            "rollout_halt": cover(_waves, "halt"),
            "rollout_progress": cover(_waves, "progress"),
            "failed_gates": cover(_gates, "failed"),
            "report_rows": lambda results, hosts, trials=None, firewalls=None, pulls=None: _report.rows(
                hosts, results, trials, firewalls, pulls
            ),
            "io_threads": speaking(io_threads),
            "limit_lines": speaking(limit_lines),
            "dropin_lines": cover(_limits, "dropin_lines"),
            "builds_shared": cover(_publish, "shares"),
            "publish_faults": cover(_publish, "module_faults"),
            "published_artifact": cover(_publish, "entry"),
            "wheels_download": cover(_publish, "download_command"),
            "from_repository": from_repository,
            "signer_faults": cover(_pull, "signer_faults"),
            "declared_faults": declared_faults,
            "observed_faults": cover(_refusals, "of_host"),
            "first_results": cover(_refusals, "first_results"),
            "preflight_table": cover(_preflight, "table"),
            "report_table": cover(_report, "table"),
        }
