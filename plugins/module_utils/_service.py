# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a unit anew and wait until its server answers."""

from __future__ import annotations

import time
from typing import Callable

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host

POLL_SECONDS = 0.05


class ServiceError(Exception):
    """The server did not come back; the text is for the operator."""


def restart(run: _host.Run, unit: str) -> None:
    """Restart the unit as its files say by now. Raises ServiceError where systemd could not start it."""
    run(["systemctl", "daemon-reload"])
    # A unit that failed five times in a row refuses every start until this is said.
    run(["systemctl", "reset-failed", unit])
    code, out, err = run(["systemctl", "restart", unit])
    if code != 0:
        said = (err or out).strip().splitlines()
        raise ServiceError(f"the server does not start: {said[0] if said else 'systemctl gave no reason'}")


def await_ready(run: _host.Run, unit: str, connect: Callable[[], _client.Client], timeout: int) -> None:
    """Wait until the server answers and has loaded its data. Raises ServiceError after I(timeout) seconds."""
    deadline = time.monotonic() + timeout
    last = "it did not answer"
    while time.monotonic() < deadline:
        if _host.unit_state(run, unit).get("ActiveState") == "failed":
            raise ServiceError("the server ended while it was starting")
        try:
            client = connect()
            loading = client.info().get("loading", "0")
            client.close()
            if loading == "0":
                return
            last = "it is still loading its data"
        except _client.NotReachedError as error:
            # Waiting mends a server that starts, not a certificate.
            if "CERTIFICATE" in str(error):
                raise ServiceError(f"the server started, but can't be asked: {error}") from error
            last = str(error)
        except _client.ServerError as error:
            raise ServiceError(f"the server started, but can't be asked: {error}") from error
        time.sleep(POLL_SECONDS)
    raise ServiceError(f"the server was not ready {timeout} seconds after its start: {last}")


def aof_written(client: _client.Client, timeout: int) -> bool:
    """Wait until the first AOF is written, after appendonly was switched on: a restart before that would come up empty.

    Return whether it was within I(timeout) seconds. Raises ServerError.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        info = client.info()
        if info.get("aof_rewrite_in_progress", "0") == "0" and info.get("aof_rewrite_scheduled", "0") == "0":
            return True
        time.sleep(POLL_SECONDS)
    return False
