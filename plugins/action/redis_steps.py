# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_steps: what is refused there does not go to the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _kept

MODULE = "edgeops.redis_modules.redis_steps"
RECEIPT = "redis_receipt"


def with_declared(steps: list[dict[str, Any]], host: str) -> list[dict[str, Any]]:
    """Return the steps with what the first look has kept for a receipt; without one of which nothing is known."""
    declared = _kept.declared(host)
    return [
        {**step, "args": {**step.get("args", {}), "_declared": declared}} if step.get("module") == RECEIPT else step
        for step in steps
        if declared or step.get("module") != RECEIPT
    ]


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
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        return {**result, **answer}
