"""Address space, where the system bounds it (RLIMIT_AS): a process fits in whole, or it says no.

Compiled code (pydantic's, OpenSSL's) takes an allocation that fails for the end of the process, and
asyncio closes a socket in whose reading one fails, so that nobody is answered any more. So the
bound must never be met. A process starts only where there is room for all that its own limits let
it hold at once; what is more than that they refuse.

Threads take space that nobody uses: a stack as large as a shell's may get (8 MiB), and what the C
library sets aside for what each allocates (64 MiB). Where there is a bound, stacks are small and
threads share what they allocate from.
"""

import ctypes
import resource
import threading

from vdpad.errors import VdpadError

STACK = 256 * 1024
"""Of a thread where space is bounded, in bytes. Python's own calls take none of it."""

# glibc's malloc.h, M_ARENA_MAX. Other C libraries have neither arenas nor mallopt(3).
_ARENA_MAX = -8


class TooLittleSpace(VdpadError):
    """The bound of the address space is below what the process may need."""


def check_address_space(need_mib: int, why: str) -> None:
    """Refuses a bound that is too small.

    Args:
        need_mib: what the process may take of it, in MiB, its code and stacks included.
        why: what that depends on, and what is to be done, for people.

    Raises:
        TooLittleSpace
    """
    bound, _ = resource.getrlimit(resource.RLIMIT_AS)
    if bound != resource.RLIM_INFINITY and bound < need_mib << 20:
        raise TooLittleSpace(
            f"expected {need_mib} MiB of address space at least, got a bound of {bound >> 20} "
            f"(RLIMIT_AS: ulimit -v, LimitAS=); {why}"
        )


def spare_address_space() -> None:
    """Where it is bounded, has threads take little of it. Before there are any."""
    bound, _ = resource.getrlimit(resource.RLIMIT_AS)
    if bound == resource.RLIM_INFINITY:
        return
    threading.stack_size(STACK)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
