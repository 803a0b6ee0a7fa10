"""A back end in a process of its own: `python -m tests.backend.back_end_process SOCKET`.

It connects to the socket, at which a front end listens, serves that on the software device, and
ends when it is gone, or has asked for something whose refusal it cannot be told of. For tests in
which the process itself ends.
"""

import asyncio
import socket
import sys

from tests.backend.vmm import back_end
from vdpad.errors import VdpadError


async def _serve(path: str) -> None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    async with back_end() as on:
        try:
            await on.front_ends.serve(connection)
        except VdpadError as error:
            sys.exit(str(error))
    if on.refusals:
        sys.exit("\n".join(on.refusals))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
