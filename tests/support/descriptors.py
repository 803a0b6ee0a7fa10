"""Counting file descriptors, and one that is hard to close."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vdpad.wire.descriptors import CLOSER


def open_descriptors() -> dict[str, str]:
    """Every open descriptor's number, and what it is open on, once none waits to be closed."""
    CLOSER.flush()
    while CLOSER.waiting:
        time.sleep(0.0005)
    return open_descriptors_of("self")


def open_descriptors_of(pid: int | str) -> dict[str, str]:
    """The same of another process, as they are."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def count_of_descriptors(pid: int) -> int:
    """How many another process has, whatever they are open on: of many, sooner said."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails where the block leaves a descriptor open, or closes one that is not its own."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@contextmanager
def lingering(seconds: int) -> Iterator[int]:
    """A descriptor whose closing takes so long, or until the block ends; it is the caller's.

    It is a TCP socket with unsent data.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        with server.accept()[0]:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
            sender.setblocking(False)
            with suppress(BlockingIOError):
                while sender.send(bytes(1 << 16)):
                    pass
            yield sender.detach()
