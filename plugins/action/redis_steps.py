# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_steps: what is refused there does not go to the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

MODULE = "edgeops.redis_modules.redis_steps"


class ActionModule(ActionBase):
    """Runs the module, unless something stands against it."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        refused = self._task.args.get("refuse") or []
        if refused:
            why = [refused] if isinstance(refused, str) else refused
            return {**result, "failed": True, "msg": "\n".join(str(line) for line in why), "steps": {}}
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=dict(self._task.args), task_vars=task_vars
        )
        return {**result, **answer}
