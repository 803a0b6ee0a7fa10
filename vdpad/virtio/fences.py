"""Memory fences between two sides of a ring.

A ring is shared with a device that looks at it while we write. Three orders matter (virtio 1.4,
2.7.13): ring entries before the index that publishes them; the index before the entries that it
announces; and the published index before the look at whether a doorbell is wanted, which only a
full fence gives, on any processor. One function serves all three: it runs once a batch, and a
full fence costs 0.2 µs.

`atomic_thread_fence` comes from libatomic (Debian: libatomic1). Where it is missing on x86-64,
taking a lock will do: it is a locked instruction, which is a full fence there. Elsewhere nothing
else will do, membarrier(2) included, which is empty in a process of one thread.
"""

import ctypes
import platform
import threading
from collections.abc import Callable
from functools import partial

from vdpad.errors import VdpadError

_SEQ_CST = 5
_TOTAL_STORE_ORDER = ("x86_64", "AMD64")


class NoFence(VdpadError):
    """This machine needs libatomic and has none."""


def _from_libatomic() -> Callable[[], None]:
    atomic_thread_fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    atomic_thread_fence.argtypes = (ctypes.c_int,)
    atomic_thread_fence.restype = None
    return partial(atomic_thread_fence, _SEQ_CST)


def _from_lock() -> Callable[[], None]:
    lock = threading.Lock()

    def full_fence() -> None:
        with lock:
            pass

    return full_fence


def load_fence() -> Callable[[], None]:
    """The function that is a full fence on this machine.

    Raises:
        NoFence: no libatomic, and not x86-64.
    """
    try:
        return _from_libatomic()
    except (OSError, AttributeError) as error:
        if platform.machine() in _TOTAL_STORE_ORDER:
            return _from_lock()
        raise NoFence(
            f"expected libatomic.so.1 on {platform.machine()}, got {error}; install libatomic1"
        ) from error
