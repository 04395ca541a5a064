# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose power is cut at any moment of a rollout boots with a whole server, and the next run finishes it.

All hosts of a lab share this machine's page cache, so what was written and not synced survives here: these tests show
that every step leaves whole files, the unit tests of _release and _snapshot that each is synced.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import Built
from rollout_kit import ROOT, Host, Lab, run
from upgrade import MOMENTS, Upgrade, nothing_lost, runs, writing

sys.path.insert(0, str(ROOT / "lab"))

from labkit import lifecycle
from labkit.config import load_config

pytestmark = pytest.mark.usefixtures("roles_alone")


class Power:
    """The power of one host of the lab."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.lab = lab
        self.host = host
        self.config = load_config()

    def cut(self) -> None:
        """End every process of the host at once."""
        lifecycle.power_cut(self.config, self.lab.name, self.host.name, lambda _text: None)

    def back(self) -> None:
        """Boot on the disk that was kept."""
        # Nobody closed these connections: whoever used them again would wait for ever.
        folder = self.lab.ansible.connection["ansible_control_path_dir"]
        for path in subprocess.run(["ls", "-A", folder], capture_output=True, text=True, check=True).stdout.split():
            run("ssh", "-F", "none", "-o", f"ControlPath={folder}/{path}", "-O", "exit", "lab")
        lifecycle.start(self.config, self.lab.name, self.host.name, 60, lambda _text: None)


def test_a_power_cut_at_any_step_loses_nothing(
    lab: Lab, built: dict[str, Built], probes: Callable[..., Built], r13: Host
) -> None:
    """The server boots with what is on disk, with every key that it had acknowledged."""
    upgrade = Upgrade(probes, built["handed"], 0)
    lab.ansible([r13], upgrade.modules, **upgrade.variables).good()
    r13.sh("rm -f /root/acknowledged; redis-cli SET saved value; redis-cli SAVE")
    power = Power(lab, r13)
    for number, (step, after) in enumerate(MOMENTS, start=1):
        when = f"a power cut {after} s into {step}"
        upgrade = Upgrade(probes, built["handed"], number)
        with writing(r13):
            lab.ansible.killed(r13, upgrade.modules, step, after, power.cut, **upgrade.variables)
            power.back()
        runs(r13, when)
        nothing_lost(r13, when)
        with writing(r13):
            lab.ansible([r13], upgrade.modules, **upgrade.variables).good()
        upgrade.check(r13, when)
        nothing_lost(r13, when)
    lab.ansible([r13], upgrade.modules, **upgrade.variables).unchanged()
