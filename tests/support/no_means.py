"""A process that the system gives no more: no descriptors, or no threads."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """This process may open so many more descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = _free(spare + 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _free(count: int) -> list[int]:
    """The lowest numbers that no descriptor has."""
    made = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
    for each in made:
        os.close(each)
    return sorted(made)


def no_threads(patch: pytest.MonkeyPatch) -> None:
    """This process can start no thread, by what CPython raises then (Modules/_threadmodule.c)."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)
