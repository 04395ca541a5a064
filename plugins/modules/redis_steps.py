#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run several modules of this collection on a host in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_steps
short_description: Run several modules of this collection on a host in one round trip
version_added: 0.1.0
description:
  - Runs modules of this collection one after another in one process on the host, in the given order, and stops at the
    first that fails. Its message is the one of this module then.
  - Each round trip costs a start of Python on the host, and a fork on the controller. The roles of this collection go
    through this module where nothing has to be decided on the controller in between.
  - The connection options are given to each step that takes them.
author:
  - edgeops contributors (@edgeops)
options:
  steps:
    description: What to run, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it does, for people; C(failed_step) where it fails.
        type: str
        required: true
      module:
        description: The module, without the name of this collection. Of V(redis_module_artifact), its look alone.
        type: str
        required: true
        choices:
          - redis_health
          - redis_keys_delete
          - redis_module_artifact
          - redis_modules_confirm
          - redis_modules_info
          - redis_modules_place
          - redis_preflight
          - redis_receipt
          - redis_rollout_lock
          - redis_server_config
          - redis_service
          - redis_snapshot
          - redis_topology_info
          - redis_trial
      id:
        description: Its key in RV(steps); without it, the module's name without C(redis_).
        type: str
      args:
        description: Its arguments.
        type: dict
        default: {}
      take:
        description:
          - Arguments that come from the results of steps before it, as C(ID.FIELD). Where that step did not run or has
            no such field, the argument is left out.
        type: dict
        default: {}
      only_if:
        description: Run it only where this field of a step before it, C(ID.FIELD), is true and not empty.
        type: str
      when:
        description: Whether to run it at all; for what the controller knows.
        type: bool
        default: true
      only_look:
        description: Run it in check mode, whatever the others run in.
        type: bool
        default: false
      may_fail:
        description: Go on where it fails, with a warning.
        type: bool
        default: false
  given:
    description: Arguments for each step that takes them; its own O(steps[].args) count before them.
    type: dict
    default: {}
  known:
    description: Results of an earlier round trip, by id; O(steps[].take) and O(steps[].only_if) can take from them too.
    type: dict
    default: {}
  refuse:
    description: What stands against it, as sentences. Where there is one, the module fails with them and runs nothing.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Look at a server and at whom it follows
  edgeops.redis_modules.redis_steps:
    given:
      conf_path: /etc/redis/redis.conf
      unit: redis-server.service
    steps:
      - name: Look at the server
        module: redis_modules_info
      - name: Ask whom it follows
        module: redis_topology_info
        args:
          modules: [sensorwindow]
  register: found

- name: Say whom it follows
  ansible.builtin.debug:
    var: found.steps.topology_info.server.primary
"""

RETURN = r"""
steps:
  description: The result of each step that ran, by its O(steps[].id).
  returned: always
  type: dict
failed_step:
  description: The O(steps[].name) of the step that failed.
  returned: when one failed
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _steps


class Quiet(AnsibleModule):
    """Leaves it to the steps to tell how they were called: they alone know which of their arguments are secrets."""

    def _load_params(self) -> None:
        super()._load_params()
        self.internal = {key: value for key, value in self.params.items() if key.startswith(_steps.INTERNAL)}

    def _log_invocation(self) -> None:
        """Log nothing."""

    def _return_formatted(self, kwargs: Any) -> None:
        """Show of the arguments the names of the steps alone, also where they are not as they should be."""
        names = [step.get("name") for step in self.params.get("steps") or [] if isinstance(step, dict)]
        super()._return_formatted({**kwargs, "invocation": {"module_args": {"steps": names}}})


def main() -> None:
    """Entry point."""
    module = Quiet(
        argument_spec={
            "steps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "module": {"type": "str", "required": True, "choices": sorted(_steps.MODULES)},
                    "id": {"type": "str"},
                    "args": {"type": "dict", "default": {}},
                    "take": {"type": "dict", "default": {}},
                    "only_if": {"type": "str"},
                    "when": {"type": "bool", "default": True},
                    "only_look": {"type": "bool", "default": False},
                    "may_fail": {"type": "bool", "default": False},
                },
            },
            "given": {"type": "dict", "default": {}},
            "known": {"type": "dict", "default": {}},
            "refuse": {"type": "list", "elements": "str", "default": []},
            **_client.LOGIN_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["refuse"]:
        module.fail_json(msg="\n".join(params["refuse"]), steps={})
    try:
        steps = _steps.steps_of(params)
    except _steps.StepsError as error:
        module.fail_json(msg=str(error), steps={})
    given = {**{name: params[name] for name in _client.LOGIN_ARGUMENTS}, **params["given"]}
    outcome = _steps.run(steps, given, module.internal, lambda name: _steps.MODULES[name](), params["known"])
    module.no_log_values.update(outcome.secrets)
    for warning in outcome.warnings:
        module.warn(_steps.masked(warning, outcome.secrets))
    result = _steps.result(outcome)
    if outcome.failed:
        result.pop("failed")
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
