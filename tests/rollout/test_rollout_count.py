# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upgrade costs each host: a task is a fork of the controller, a round trip a start of Python on the host."""

from __future__ import annotations

from conftest import Built
from rollout_kit import Host, Lab

MOST_TASKS = 12
MOST_ROUND_TRIPS = 5


def test_an_upgrade_costs_no_more_tasks_and_round_trips_than_it_has_to(
    lab: Lab, fleet: list[Host], built: dict[str, Built]
) -> None:
    """The second run changes an argument on hosts that have all packages and the artifact, in one wave."""
    lab.ansible(fleet, [built["handed"].entry()]).good()
    done = lab.ansible(fleet, [built["handed"].entry(args=["other"])], "-vvv").good()
    # The first host of a wave does in addition what is done once for all of them.
    for host in fleet[1:]:
        tasks = done.tasks(host)
        assert len(tasks) <= MOST_TASKS, "\n".join(tasks)
        trips = done.round_trips(host)
        assert 0 < len(trips) <= MOST_ROUND_TRIPS, "\n".join(trips)
        assert host.modules() == {"handed": 1}
