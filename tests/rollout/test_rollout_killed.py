# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that dies at any moment leaves a server that runs, and the next run brings it to what is declared."""

from __future__ import annotations

from rollout_kit import FOLDER, UNIT, Host, Lab, until, variant

MOMENTS = (
    # The next task's banner comes when the task before it is over.
    ("place", "Place each module by rename", 0.4),
    ("placed", "Write redis.conf and the drop-in", 0.0),
    ("configured", "Bring the running server to its configuration", 0.0),
    ("restarting", "Bring the running server to its configuration", 1.0),
    ("restarted", "Confirm by MODULE LIST", 0.0),
)


def test_a_killed_run_is_finished_by_the_next(lab: Lab, r12: Host) -> None:
    """Killed at several moments of an upgrade that changes file, arguments and redis.conf."""
    lab.ansible([r12], [variant("probe", "PROBE_TEXT=begin", args=["begin"])]).good()
    for moment, task, after in MOMENTS:
        modules = [variant("probe", f"PROBE_TEXT={moment}", args=[moment])]
        lab.ansible.killed(r12, modules, task, after, redis_server_extra_directives={"hz": 10 + len(moment)})
        # What the run had started on the host may go on for a moment; the server itself must never be lost.
        until(
            lambda: r12.sh(f"systemctl is-active {UNIT}", check=False).strip() == "active",
            f"up after a kill at {moment}",
        )

        lab.ansible([r12], modules, redis_server_extra_directives={"hz": 10 + len(moment)}).good()
        path = f"{FOLDER}/probe.so"
        assert r12.cli("probe.text") == moment, f"killed at {moment}"
        assert r12.texts("probe.args") == [moment], f"killed at {moment}"
        assert r12.config("hz") == str(10 + len(moment))
        assert r12.sha256(path) == r12.live_sha256(path), f"killed at {moment}"
        assert r12.sh(f"ls -A {FOLDER}").split() == [".releases", "probe.so"], f"killed at {moment}"
    lab.ansible(
        [r12],
        [variant("probe", f"PROBE_TEXT={MOMENTS[-1][0]}", args=[MOMENTS[-1][0]])],
        redis_server_extra_directives={"hz": 10 + len(MOMENTS[-1][0])},
    ).unchanged()


def test_a_server_that_gave_up_is_started_again(lab: Lab, r12: Host) -> None:
    """Five failed starts make systemd refuse the next; a rollout mends that, too."""
    lab.ansible([r12], [variant("probe")]).good()
    r12.sh(f"mv {FOLDER}/probe.so {FOLDER}/lost; systemctl restart {UNIT} || true")
    until(lambda: r12.sh(f"systemctl is-failed {UNIT}", check=False).strip() == "failed", "systemd has given up")
    lab.ansible([r12], [variant("probe")]).good()
    assert r12.modules() == {"probe": 1}
