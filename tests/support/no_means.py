"""A process that the system gives no more: no descriptors, or no threads."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """This process may open so many more descriptors, and again those that it closes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    behind = 1 + max(map(int, os.listdir("/proc/self/fd")))
    gaps = _filled(behind)
    resource.setrlimit(resource.RLIMIT_NOFILE, (behind + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in gaps:
            os.close(each)


def _filled(behind: int) -> list[int]:
    """Descriptors in all numbers below this one that were free."""
    made = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    while made[-1] < behind:
        made.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    os.close(made.pop())
    return made


def no_threads(patch: pytest.MonkeyPatch) -> None:
    """This process can start no thread, by what CPython raises then (Modules/_threadmodule.c)."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)
