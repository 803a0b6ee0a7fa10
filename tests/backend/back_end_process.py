"""A back end in a process of its own: `python -m tests.backend.back_end_process SOCKET`.

It connects to the socket, at which a front end listens, serves that on the software device, and
ends when it is gone. For tests in which the process itself ends.
"""

import asyncio
import socket
import sys

from tests.backend.vmm import back_end


async def _serve(path: str) -> None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    async with back_end() as on:
        await on.front_ends.serve(connection)
    if on.refusals:
        sys.exit("\n".join(on.refusals))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
