# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_receipt: all that is declared of the host, as one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declared
from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _kept

MODULE = "edgeops.redis_modules.redis_receipt"


class ActionModule(ActionBase):
    """Runs the module once."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        host = str(task_vars.get("inventory_hostname"))
        if args.get("state", "compared") == "compared":
            try:
                args["_declared"] = self._declared(task_vars)
            except _declared.UnknownError as error:
                args["_unknown"] = str(error)
            # Also where it can't be told: what an earlier look of this run has seen declared holds no more.
            _kept.keep_declared(host, args.get("_declared", ""))
        else:
            args["_declared"] = _kept.declared(host)
            if not args["_declared"]:
                why = "what was declared could not be told before anything was changed"
                return {**result, "changed": False, "noted": False, "differences": [why], "reached": ""}
        result.update(self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars))
        return result

    def _declared(self, task_vars: Mapping[str, Any]) -> str:
        """Return the digest over variables, sources, peers and the collection itself. Raises UnknownError."""
        values = _declared.values(task_vars, self._templar.template)
        folders = [str(task_vars.get("inventory_dir") or ""), str(task_vars.get("playbook_dir") or "")]
        peers = _declared.peers(
            values,
            list(task_vars.get("ansible_play_hosts_all") or []),
            lambda host: task_vars["hostvars"][host],
            str(task_vars.get("ansible_limit") or ""),
        )
        return _declared.digest(
            values,
            sources=_declared.sources(values, folders),
            peers=peers,
            collection=_declared.collection(str(Path(__file__).resolve().parents[2])),
        )
