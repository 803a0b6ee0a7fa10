"""How much address space a daemon may need, by its limits. systemd/vdpad.service has the sums."""

from vdpad.daemon.settings import Limits
from vdpad.service.address_space import check_address_space

_OWN_MIB = 600
"""Beside operations: 60 for the code, 223 for datagrams that are being answered or wait, 237 for
connections and their replies, 18 for the requests of other hosts, 49 for 195 threads."""

_PER_OPERATION_MIB = 1
"""What a commit maps of a lent ring and its buffers, of its record, and a device's thread."""


def needed_mib(limits: Limits) -> int:
    """What a daemon with these limits may take, in MiB.

    One user may have all that they say, and others half as much beside him.
    """
    of_one = limits.memory_mib + limits.operations_at_once * _PER_OPERATION_MIB
    return _OWN_MIB + of_one * 3 // 2


def check_room(limits: Limits) -> None:
    """Refuses limits that the address space is too small for, where it is bounded.

    Raises:
        TooLittleSpace
    """
    check_address_space(
        needed_mib(limits),
        f"that is {_OWN_MIB}, and 1.5 times limits.memory_mib ({limits.memory_mib}) and "
        f"limits.operations_at_once ({limits.operations_at_once}); raise it, or lower these, or "
        "bound memory by MemoryMax= instead",
    )
