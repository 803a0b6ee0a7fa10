"""Memory fences between two sides of a ring.

A ring is shared with a device that looks at it while we write. Three orders matter (virtio 1.4,
2.7.13): ring entries before the index that publishes them; the index before the entries that it
announces; and the published index before the look at whether a doorbell is wanted. The first two
x86-64 keeps by itself, and `ordering_fence` is nothing there; the third only a full fence gives, on
any processor. Elsewhere one full fence serves all three: it runs once a batch and costs 0.2 µs.

On x86-64 taking and giving a lock is a full fence, being locked instructions, and costs a third
of a call through ctypes. Elsewhere `atomic_thread_fence` of libatomic (Debian: libatomic1) does it,
and nothing else will, membarrier(2) included, which is empty in a process of one thread.
"""

import ctypes
import platform
import threading
from collections.abc import Callable
from functools import partial

from vdpad.errors import VdpadError

_SEQ_CST = 5
_STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64")


class NoFence(VdpadError):
    """This machine needs libatomic and has none."""


def _from_libatomic() -> Callable[[], None]:
    try:
        atomic_thread_fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except (OSError, AttributeError) as error:
        raise NoFence(
            f"expected libatomic.so.1 on {platform.machine()}, got {error}; install libatomic1"
        ) from error
    atomic_thread_fence.argtypes = (ctypes.c_int,)
    atomic_thread_fence.restype = None
    return partial(atomic_thread_fence, _SEQ_CST)


def _from_lock() -> Callable[[], None]:
    lock = threading.Lock()
    acquire, release = lock.acquire, lock.release

    def full_fence() -> None:
        acquire()
        release()

    return full_fence


def _nothing() -> None:
    """What orders two stores, or two loads, where the processor keeps them in order."""


def find_fence() -> Callable[[], None]:
    """The function that is a full fence on this machine.

    Raises:
        NoFence: neither x86-64 nor libatomic.
    """
    return _from_lock() if _STORES_IN_ORDER else _from_libatomic()


full_fence = find_fence()
"""Orders everything before it against everything after it."""

ordering_fence = _nothing if _STORES_IN_ORDER else full_fence
"""Orders stores against later stores, and loads against later loads."""

ordered_without_fence = _STORES_IN_ORDER
"""Whether that is nothing on this machine, for a loop that cannot afford the call."""
