# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run several of this collection's modules one after another in one process.

To start Python, to compile what a module imports and to open a connection costs more than most of them do.
"""

from __future__ import annotations

import traceback
from typing import Any, Callable, Iterable, Mapping, NamedTuple, NoReturn, Sequence, TypeVar

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import remove_values

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _memo

INTERNAL = "_ansible_"
Masked = TypeVar("Masked")


class StepsError(ValueError):
    """The steps are not written as they have to be; the text is for the operator."""


class Step(NamedTuple):
    """One step as it was asked for.

    I(take) maps arguments to fields of former results (C(trial.delete)); with I(only_if), it runs only where such a
    field has something in it. With I(only_look), it runs in check mode; with I(may_fail), the others follow all the
    same.
    """

    id: str
    name: str
    module: str
    args: dict[str, Any]
    take: dict[str, str]
    only_if: str = ""
    only_look: bool = False
    may_fail: bool = False


class Outcome(NamedTuple):
    """What became of the steps: their results by id, and the one that failed, where one did.

    I(secrets) are the values that must not leave this process.
    """

    results: dict[str, dict[str, Any]]
    failed: Step | None
    secrets: set[str]
    warnings: list[str]


# Each is imported only where it is asked for: it is compiled anew each time. The names are written out, as that is how
# Ansible knows what to send.


def _health() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_health

    return _step_health


def _keys_delete() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_keys_delete

    return _step_keys_delete


def _module_artifact() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_module_artifact

    return _step_module_artifact


def _modules_confirm() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_confirm

    return _step_modules_confirm


def _modules_info() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_info

    return _step_modules_info


def _modules_place() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_place

    return _step_modules_place


def _preflight() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_preflight

    return _step_preflight


def _receipt() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_receipt

    return _step_receipt


def _rollout_lock() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_rollout_lock

    return _step_rollout_lock


def _server_config() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_server_config

    return _step_server_config


def _service() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_service

    return _step_service


def _snapshot() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_snapshot

    return _step_snapshot


def _topology_info() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_topology_info

    return _step_topology_info


def _trial() -> Any:
    from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_trial

    return _step_trial


MODULES: dict[str, Callable[[], Any]] = {
    "redis_health": _health,
    "redis_keys_delete": _keys_delete,
    "redis_module_artifact": _module_artifact,
    "redis_modules_confirm": _modules_confirm,
    "redis_modules_info": _modules_info,
    "redis_modules_place": _modules_place,
    "redis_preflight": _preflight,
    "redis_receipt": _receipt,
    "redis_rollout_lock": _rollout_lock,
    "redis_server_config": _server_config,
    "redis_service": _service,
    "redis_snapshot": _snapshot,
    "redis_topology_info": _topology_info,
    "redis_trial": _trial,
}
"""What can be a step. Each has SPEC, the arguments of its AnsibleModule, and run()."""


class Ended(BaseException):
    """A step has ended with this result. No Exception, as sys.exit() raises none either."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class StepModule(AnsibleModule):
    """The AnsibleModule of one step: it takes its arguments from us, and gives its result to us."""

    def __init__(self, given: Mapping[str, Any], secrets: set[str], **spec: Any) -> None:
        self.given = given
        self.secrets = secrets
        super().__init__(**spec)

    def _load_params(self) -> None:
        """Take the arguments that were given, in the place of those that Ansible has sent."""
        self.params = dict(self.given)

    def exit_json(self, **kwargs: Any) -> NoReturn:
        """End the step."""
        self.secrets.update(self.no_log_values)
        raise Ended(kwargs)

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """End the step, and all that were to follow."""
        self.secrets.update(self.no_log_values)
        raise Ended({**kwargs, "failed": True, "msg": str(msg)})


def steps_of(params: Mapping[str, Any]) -> list[Step]:
    """Return the steps that are to run. Raises StepsError."""
    found: list[Step] = []
    own: set[str] = set()
    known = set(params["known"])
    for entry in params["steps"]:
        key = entry["id"] or entry["module"].split("_", maxsplit=1)[1]
        if key in own:
            raise StepsError(f"steps: there are two with the id {key}; give one of them another")
        for taken in [*(entry["take"] or {}).values(), *([entry["only_if"]] if entry["only_if"] else [])]:
            if str(taken).split(".", maxsplit=1)[0] not in known:
                raise StepsError(f"steps: {key} takes {taken}, which no step before it gives")
        own.add(key)
        known.add(key)
        if entry["when"]:
            step = Step(key, entry["name"], entry["module"], entry["args"] or {}, entry["take"] or {})
            flags = {"only_look": entry["only_look"], "may_fail": entry["may_fail"]}
            found.append(step._replace(only_if=entry["only_if"] or "", **flags))
    return found


def field(results: Mapping[str, Mapping[str, Any]], where: str) -> Any:
    """Return a field of a former result; None where that step did not run, or has no such field."""
    found: Any = results
    for name in where.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def arguments(
    step: Step, takes: Mapping[str, Any], given: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the arguments of a step: of what is given to all what it takes, its own, and what it takes from others.

    I(takes) are the specifications of its arguments. What nobody has given is left out, so that the default counts.
    """
    common = {name: given[name] for name in takes if name in given}
    taken = {name: field(results, where) for name, where in step.take.items()}
    found = {**common, **step.args, **taken}
    return {name: _known_keys(value, takes.get(name, {})) for name, value in found.items() if value is not None}


def _known_keys(value: Any, spec: Mapping[str, Any]) -> Any:
    """Return the value of an argument; of a list of dictionaries, with the keys alone that this module knows."""
    if spec.get("elements") != "dict" or "options" not in spec or not isinstance(value, list):
        return value
    return [
        {key: entry[key] for key in spec["options"] if key in entry} if isinstance(entry, Mapping) else entry
        for entry in value
    ]


def run(
    steps: Sequence[Step],
    given: Mapping[str, Any],
    internal: Mapping[str, Any],
    load: Callable[[str], Any],
    known: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run the steps in their order, up to the first that fails.

    I(internal) is what Ansible tells each module (check mode, diff mode, …); I(load) gives what a module does; I(known)
    are results of another round trip.
    """
    outcome = Outcome({}, None, set(), [])
    with _memo.shared():
        for step in steps:
            so_far = {**(known or {}), **outcome.results}
            if step.only_if and not field(so_far, step.only_if):
                continue
            found = _run(step, given, internal, so_far, outcome.secrets, load(step.module))
            outcome.results[step.id] = found
            if not found.get("failed"):
                continue
            if not step.may_fail:
                return outcome._replace(failed=step)
            outcome.warnings.append(f"{step.name}: {found['msg']}")
    return outcome


def _run(
    step: Step,
    given: Mapping[str, Any],
    internal: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    secrets: set[str],
    does: Any,
) -> dict[str, Any]:
    module = None
    try:
        own = arguments(step, does.SPEC["argument_spec"], given, results)
        if step.only_look:
            internal = {**internal, INTERNAL + "check_mode": True}
        module = StepModule({**internal, **own, INTERNAL + "module_name": step.module}, secrets, **does.SPEC)
        does.run(module)
    except Ended as ended:
        result = dict(ended.result)
        return {**result, "changed": False} if step.only_look and "changed" in result else result
    except Exception as error:  # noqa: BLE001
        # What no step before it did may be lost, nor the name of the one that came to grief.
        return {"failed": True, "msg": f"{type(error).__name__}: {error}", "exception": traceback.format_exc()}
    raise AssertionError(f"{step.module} ended without a result")


def result(outcome: Outcome) -> dict[str, Any]:
    """Return the result of all steps together, without secrets."""
    diffs: list[Any] = []
    for found in outcome.results.values():
        diff = found.get("diff")
        diffs += diff if isinstance(diff, list) else [diff] if diff else []
    steps = {key: {k: v for k, v in found.items() if k != "diff"} for key, found in outcome.results.items()}
    told: dict[str, Any] = {
        "changed": any(found.get("changed") for found in outcome.results.values()),
        "steps": steps,
        "diff": diffs,
    }
    if outcome.failed:
        failed = outcome.results[outcome.failed.id]
        told.update(failed=True, failed_step=outcome.failed.name, msg=failed["msg"])
        if "exception" in failed:
            told["exception"] = failed["exception"]
    return masked(told, outcome.secrets)


def masked(value: Masked, secrets: Iterable[str]) -> Masked:
    """Return a value as it may leave this process."""
    cleaned: Masked = remove_values(value, secrets)
    return cleaned
