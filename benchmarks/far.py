#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ProxyCommand for ssh that makes a host far: far.py HOST PORT SECONDS holds all that passes for so long, each way.

For kernels that can't delay a lab's links themselves.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

CHUNK = 1 << 16

Read = Callable[[], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[None]]


async def carry(read: Read, write: Write, seconds: float) -> None:
    """Take what comes to the other side, each piece so many seconds after it came, up to the end."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def hand_out() -> None:
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                return
            await write(piece)

    handing_out = asyncio.create_task(hand_out())
    while True:
        piece = await read()
        under_way.put_nowait((loop.time() + seconds, piece))
        if not piece:
            return await handing_out


async def main(host: str, port: int, seconds: float) -> None:
    """Go on until one side has ended and the other has been told."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(host, port)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    async def send(piece: bytes) -> None:
        writer.write(piece)
        await writer.drain()

    async def give(piece: bytes) -> None:
        # To a pipe of ssh's that it reads at once.
        await loop.run_in_executor(None, os.write, sys.stdout.fileno(), piece)

    ways = [
        asyncio.create_task(carry(lambda: stdin.read(CHUNK), send, seconds)),
        asyncio.create_task(carry(lambda: reader.read(CHUNK), give, seconds)),
    ]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
