"""Counting this process's file descriptors."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vdpad.wire.descriptors import CLOSER


def open_descriptors() -> dict[str, str]:
    """Every open descriptor's number, and what it is open on, once none waits to be closed."""
    CLOSER.flush()
    while CLOSER.waiting:
        time.sleep(0.0005)
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails where the block leaves a descriptor open, or closes one that is not its own."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
