"""A software device in a process of its own: it works while we do, as real hardware does.

The child lends its queue over a socket, as a VMM does. It tells what it holds when it is asked, and
is then as if reset; and once more when the socket is closed. Run as a module it is that child.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.support.devices import config
from vdpad.queues.lent_queue import LentDescriptors
from vdpad.queues.software.device import SoftwareConfig, SoftwareDevice

_ASK = b"?"


class Lender:
    """The parent's end of a device in another process."""

    def __init__(self, descriptors: LentDescriptors, child: socket.socket) -> None:
        self.descriptors = descriptors
        self.settings: dict[str, Any] = {}
        """What the device holds; there once the lender has been left."""
        self._child = child

    def held_and_reset(self) -> dict[str, Any]:
        """What the device holds, which it then forgets; its ring begins anew too."""
        self._child.sendall(_ASK)
        with self._child.makefile("rb") as said:
            held: dict[str, Any] = json.loads(said.readline())
        return held


@contextlib.contextmanager
def device_process(*, ring_size: int, event_idx: bool, interrupts: bool) -> Iterator[Lender]:
    """A device that serves in another process, and its queue's descriptors."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(ring_size)]
        options = ["--event-idx"] * event_idx + ["--interrupts"] * interrupts
        with subprocess.Popen(
            [*command, *options], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
        ) as child:
            theirs.close()
            _, fds, _, _ = socket.recv_fds(ours, 1, 3)
            lender = Lender(LentDescriptors.from_list(fds), ours)
            try:
                yield lender
            finally:
                ours.shutdown(socket.SHUT_WR)
            assert child.stdout is not None
            lender.settings = json.loads(child.stdout.read())


async def _serve(configured: SoftwareConfig, lender: socket.socket) -> dict[str, Any]:
    device = SoftwareDevice(configured)
    device.start()
    lent = device.lend()
    socket.send_fds(lender, [b"!"], [lent.memory, lent.kick, lent.call])
    lent.close()
    lender.setblocking(False)
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(lender, 1) == _ASK:
        await loop.sock_sendall(lender, json.dumps(device.net.settings()).encode() + b"\n")
        device.reset()
    held = device.net.settings()
    await device.stop()
    return held


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=int)
    parser.add_argument("ring_size", type=int)
    parser.add_argument("--event-idx", action="store_true")
    parser.add_argument("--interrupts", action="store_true")
    given = parser.parse_args()
    configured = config(
        ring_size=given.ring_size, event_idx=given.event_idx, interrupts=given.interrupts
    )
    with socket.socket(fileno=given.socket) as lender:
        print(json.dumps(asyncio.run(_serve(configured, lender))))


if __name__ == "__main__":
    _main()
