"""Counting this process's file descriptors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> dict[str, str]:
    """Every open descriptor's number, and what it is open on."""
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
