# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_steps: what is refused there does not go to the host."""

from __future__ import annotations

from typing import Any, Mapping

from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _kept, _looking

MODULE = "edgeops.redis_modules.redis_steps"
RECEIPT = "redis_receipt"
ARTIFACT = "redis_module_artifact"


def with_declared(steps: list[dict[str, Any]], host: str) -> list[dict[str, Any]]:
    """Return the steps with what the first look has kept for a receipt; without one of which nothing is known."""
    declared = _kept.declared(host)
    return [
        {**step, "args": {**step.get("args", {}), "_declared": declared}} if step.get("module") == RECEIPT else step
        for step in steps
        if declared or step.get("module") != RECEIPT
    ]


def with_looks(
    steps: list[dict[str, Any]], task_vars: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, tuple[_looking.Asked, Mapping[str, Any]]]]:
    """Return the steps as the host takes them, and the looks at artifacts among them by their id.

    Raises AnsibleActionFail where what modules are made of is not there.
    """
    found, looks = [], {}
    for step in steps:
        if step.get("module") != ARTIFACT:
            found.append(step)
            continue
        look = _looking.asked(step.get("args", {}), task_vars)
        looks[step.get("id") or ARTIFACT.split("_", maxsplit=1)[1]] = (look, step["args"])
        found.append({**step, "args": look.args})
    return found, looks


class ActionModule(ActionBase):
    """Runs the module, unless something stands against it."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        refused = self._task.args.get("refuse") or []
        if refused:
            why = [refused] if isinstance(refused, str) else refused
            return {**result, "failed": True, "msg": "\n".join(str(line) for line in why), "steps": {}}
        args = dict(self._task.args)
        args["steps"] = with_declared(args.get("steps") or [], str((task_vars or {}).get("inventory_hostname")))
        args["steps"], looks = with_looks(args["steps"], task_vars or {})
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        for key, (look, asked) in looks.items():
            seen = answer.get("steps", {}).get(key)
            if seen and not seen.get("failed"):
                answer["steps"][key] = _looking.told(look, asked, seen)
        return {**result, **answer}
