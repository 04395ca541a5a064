# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that dies at any moment leaves a server that runs, and the next run brings it to what is declared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Built
from rollout_kit import FOLDER, UNIT, Host, Lab, until, variant
from upgrade import MOMENTS, Upgrade, nothing_lost, runs, writing

pytestmark = pytest.mark.usefixtures("roles_alone")


def test_a_run_killed_at_any_step_is_finished_by_the_next(
    lab: Lab, built: dict[str, Built], probes: Callable[..., Built], r12: Host
) -> None:
    """The controller is gone by SIGKILL, and so is what it had started on the host."""
    upgrade = Upgrade(probes, built["handed"], 0)
    lab.ansible([r12], upgrade.modules, **upgrade.variables).good()
    r12.sh("rm -f /root/acknowledged; redis-cli SET saved value; redis-cli SAVE")
    for number, (step, after) in enumerate(MOMENTS, start=1):
        when = f"a kill {after} s into {step}"
        upgrade = Upgrade(probes, built["handed"], number)
        with writing(r12):
            lab.ansible.killed(r12, upgrade.modules, step, after, **upgrade.variables)
            runs(r12, when)
            lab.ansible([r12], upgrade.modules, **upgrade.variables).good()
        upgrade.check(r12, when)
        nothing_lost(r12, when)
    lab.ansible([r12], upgrade.modules, **upgrade.variables).unchanged()


def test_what_a_dead_run_had_begun_may_go_on_to_its_end(
    lab: Lab, built: dict[str, Built], probes: Callable[..., Built], r12: Host
) -> None:
    """The controller alone is killed: the host's process ends its steps, and nobody hears of it."""
    upgrade = Upgrade(probes, built["handed"], 0)
    lab.ansible([r12], upgrade.modules, **upgrade.variables).good()
    for number, step in enumerate(("redis_trial", "redis_service"), start=1):
        upgrade = Upgrade(probes, built["handed"], number)
        going_on = lambda: r12.sh("kill -CONT $(pgrep -x python3)")  # noqa: E731
        lab.ansible.killed(r12, upgrade.modules, step, 0.2, going_on, **upgrade.variables)
        until(lambda: not r12.sh("pgrep -x python3", check=False), "what was begun on the host is over", 120)
        runs(r12, f"its controller died in {step}")
        lab.ansible([r12], upgrade.modules, **upgrade.variables).good()
        upgrade.check(r12, f"its controller died in {step}")


def test_a_server_that_gave_up_is_started_again(lab: Lab, r12: Host) -> None:
    """Five failed starts make systemd refuse the next; a rollout mends that, too."""
    lab.ansible([r12], [variant("probe")]).good()
    r12.sh(f"mv {FOLDER}/probe.so {FOLDER}/lost; systemctl restart {UNIT} || true")
    until(lambda: r12.sh(f"systemctl is-failed {UNIT}", check=False).strip() == "failed", "systemd has given up")
    lab.ansible([r12], [variant("probe")]).good()
    assert r12.modules() == {"probe": 1}
