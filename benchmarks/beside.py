"""A software device in a process of its own, as a real device works beside the daemon.

The parent holds a socket to it: over it come the three descriptors of the lent ring, once, and then
an answer to each line: "reset" resets the device, "busy" tells how long it has served, in ns.
"""

import asyncio
import json
import socket
import sys
from subprocess import Popen
from types import TracebackType
from typing import Any, Self

from benchmarks.lend import lent_target
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig, SoftwareDevice
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.features import FeatureSet

_LINE = 64


class DeviceBeside:
    """The other process, from here."""

    def __init__(self, features: FeatureSet = ALL_FEATURES) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "benchmarks.beside", str(theirs.fileno())]
        command.append(str(mask_of(features)))
        self._process = Popen(command, pass_fds=(theirs.fileno(),))
        theirs.close()
        self._socket = ours
        text, fds, _, _ = socket.recv_fds(ours, 65536, 3)
        self.target: dict[str, Any] = json.loads(text)
        self.fds = tuple(fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._process.wait()

    def reset(self) -> None:
        """A fresh device on the same ring."""
        self._ask("reset")

    def busy_ns(self) -> int:
        """How long it has served since it began."""
        return int(self._ask("busy"))

    def _ask(self, line: str) -> str:
        self._socket.send(line.encode())
        return self._socket.recv(_LINE).decode()


async def _serve(connection: socket.socket, features: FeatureSet) -> None:
    device = SoftwareDevice(SoftwareConfig(features=features))
    device.start()
    target = lent_target(features, device.config.net.max_virtqueue_pairs, device.geometry)
    lent = device.lend()
    fds = (lent.memory, lent.kick, lent.call)
    socket.send_fds(connection, [json.dumps(target).encode()], fds)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    while line := await loop.sock_recv(connection, _LINE):
        if line == b"reset":
            device.reset()
        await loop.sock_sendall(connection, str(device.busy_ns).encode())
    await device.stop()


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), bits_of(int(sys.argv[2]))))
