#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that asks one server each millisecond, and tells the longest time in which it had no answer.

A process of its own, so that nothing else delays it: `asker.py ADDRESS PORT`. It says `ready` at the first answer. When
its standard input is closed it ends with one line of JSON:

- gap: the longest time between two answers, in seconds;
- answers: how many there were.

It ends by itself after LONGEST seconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "molecule" / "shared"))
from writers import PROBE_PAUSE_S, Gap

LONGEST = 1200.0
"""Seconds after which it asks no more, whatever becomes of the caller: as long as a run of Ansible may take."""

ANSWER_S = 1.0
"""How long it waits for an answer, then it tries a new connection."""


class Asker(threading.Thread):
    """Asks over one connection, and over the next one where that breaks."""

    def __init__(self, address: str, port: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.where = (address, port)
        self.over = over
        self.gap = Gap()
        self.answers = 0

    def run(self) -> None:
        """Ask until it is over."""
        while not self.over.is_set():
            with suppress(OSError), socket.create_connection(self.where, timeout=ANSWER_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ask(connection)
            time.sleep(PROBE_PAUSE_S)
        self.gap.close()

    def _ask(self, connection: socket.socket) -> None:
        """Ask over a connection until it breaks. A server that still loads its data answers with an error."""
        while not self.over.is_set():
            connection.sendall(b"PING\r\n")
            answer = connection.recv(100)
            if not answer:
                return
            if answer == b"+PONG\r\n":
                self.gap.answered()
                self.answers += 1
            time.sleep(PROBE_PAUSE_S)


def main() -> None:
    """Ask until the standard input ends."""
    with suppress(OSError):
        os.nice(-10)  # as the writers of the scenarios: what it has to wait for itself is no gap of the server's
    sys.setswitchinterval(0.0005)
    watchdog = threading.Timer(LONGEST, os._exit, (3,))
    watchdog.daemon = True
    watchdog.start()
    over = threading.Event()
    asker = Asker(sys.argv[1], int(sys.argv[2]), over)
    asker.start()
    while not asker.answers:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    asker.join(3 * ANSWER_S)
    print(json.dumps({"gap": asker.gap.longest, "answers": asker.answers}), flush=True)


if __name__ == "__main__":
    main()
