"""Both ends of a TAP interface of a namespace, for a process outside of it.

    python -m tests.support.tap_ends NAME

runs in the namespace, attaches to the interface, and gives its descriptor, and that of a socket by
which the host's end sends and receives frames, to the socket that is its standard input.
"""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.daemon import ROOT
from tests.support.namespaces import Namespace, wait_until_up
from vdpad.queues.software.tap import Tap

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
_MAX_FRAME = 65536


@dataclass
class HostEnd:
    """This host's end of the link."""

    socket: socket.socket

    def send(self, frame: bytes) -> None:
        """Sends a frame."""
        self.socket.send(frame)

    def received(self) -> list[bytes]:
        """All frames that have come."""
        frames = []
        while True:
            try:
                frames.append(self.socket.recv(_MAX_FRAME))
            except BlockingIOError:
                return frames
            except OSError as error:
                # Told once where the interface was set down.
                if error.errno != errno.ENETDOWN:
                    raise

    def has_received(self, frames: list[bytes]) -> bool:
        """Whether anything has come, which is then behind these."""
        frames += self.received()
        return bool(frames)


@contextmanager
def tap_ends(within: Namespace, name: str) -> Iterator[tuple[Tap, HostEnd]]:
    """The interface's ends, which is up; the first is to be closed by whoever takes it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = within.command(sys.executable, "-m", "tests.support.tap_ends", name)
        subprocess.run(command, stdin=theirs.fileno(), cwd=ROOT, check=True)
        _, (tap, packets), _, _ = socket.recv_fds(ours, 1, 2)
    wait_until_up(within, name)
    with socket.socket(fileno=packets) as host:
        host.setblocking(False)
        yield Tap(tap, name), HostEnd(host)


def _give(name: str) -> None:
    tap = Tap.attach(name)
    # A protocol is given by `bind`, so that nothing comes before.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as host:
        host.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        host.bind((name, _ALL_PROTOCOLS))
        with socket.socket(fileno=os.dup(sys.stdin.fileno())) as where:
            socket.send_fds(where, [b"\0"], [tap.fd, host.fileno()])
    tap.close()


if __name__ == "__main__":
    _give(sys.argv[1])
