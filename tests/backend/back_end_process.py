"""A back end in a process of its own, for tests that kill it: `python -m tests.dpdk.loop_process`.

It connects to the socket that its argument names, where a testpmd listens, serves it on the
software device that loops packets, and ends when it is gone.
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
