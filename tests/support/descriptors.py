"""Counting file descriptors."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails where the block leaves a descriptor open, or closes one that is not its own."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
