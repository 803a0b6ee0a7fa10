"""A software device in a process of its own: it works while we do, as real hardware does.

The child lends its queue over a socket, as a VMM does, and answers each line that comes over it:
"held" with what the device holds, as JSON; "busy" with how long it has served, in ns; "reset" once
it is as new. It ends when the socket is closed. Run as a module it is that child.
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


class Lender:
    """The parent's end of a device in another process."""

    def __init__(self, descriptors: LentDescriptors, child: socket.socket) -> None:
        self.descriptors = descriptors
        self._child = child

    def held(self) -> dict[str, Any]:
        """What the device holds."""
        held: dict[str, Any] = self._told("held")
        return held

    def busy_ns(self) -> int:
        """How long it has served since it began."""
        return int(self._told("busy"))

    def reset(self) -> None:
        """A fresh device on the same ring, which begins anew too."""
        self._told("reset")

    def _told(self, what: str) -> Any:
        self._child.sendall(f"{what}\n".encode())
        with self._child.makefile("rb") as said:
            return json.loads(said.readline())


@contextlib.contextmanager
def device_process(*, ring_size: int, event_idx: bool, interrupts: bool = True) -> Iterator[Lender]:
    """A device that serves in another process, and its queue's descriptors."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(ring_size)]
        options = ["--event-idx"] * event_idx + ["--interrupts"] * interrupts
        with subprocess.Popen([*command, *options], pass_fds=[theirs.fileno()]):
            theirs.close()
            _, fds, _, _ = socket.recv_fds(ours, 1, 3)
            try:
                yield Lender(LentDescriptors.from_list(fds), ours)
            finally:
                ours.shutdown(socket.SHUT_WR)


async def _serve(configured: SoftwareConfig, lender: socket.socket) -> None:
    device = SoftwareDevice(configured)
    device.start()
    lent = device.lend()
    socket.send_fds(lender, [b"!"], [lent.memory, lent.kick, lent.call])
    lent.close()
    reader, writer = await asyncio.open_unix_connection(sock=lender)
    while asked := (await reader.readline()).decode().strip():
        writer.write(json.dumps(_answer(device, asked)).encode() + b"\n")
    writer.close()
    await device.stop()


def _answer(device: SoftwareDevice, asked: str) -> Any:
    if asked == "held":
        return device.net.settings()
    if asked == "reset":
        device.reset()
    return device.busy_ns


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
        asyncio.run(_serve(configured, lender))


if __name__ == "__main__":
    _main()
