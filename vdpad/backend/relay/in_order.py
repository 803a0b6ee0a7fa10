"""What a device with IN_ORDER has returned, an element for each chain.

Such a device returns chains in the order in which they were made available, and of a batch it may
tell the last one alone, where it would have told of the first. The others are to be taken as
written to their ends; where it would have told of them stands what was there before (virtio 1.4,
2.7.9). The available ring still has all of them: its entries are the guest's to reuse once it has
the chains back.
"""

from collections.abc import Sequence

from vdpad.backend.relay.faults import DeviceBroken
from vdpad.virtio.split_ring import USED_ELEMENT

_TO_ITS_END = 0xFFFFFFFF


def each_returned(told: bytes, heads: Sequence[int]) -> bytes:
    """
    Args:
        told: used elements as they stand in the used ring, of which some may not have been told.
        heads: of as many chains, in the order in which they were made available.

    Raises:
        DeviceBroken: what is told is of none of these chains, or of an earlier one than is due.
    """
    each = bytearray(len(told))
    at = 0
    while at < len(heads):
        head, length = USED_ELEMENT.unpack_from(told, at * USED_ELEMENT.size)
        last = at
        while heads[last] != head:
            _put(each, last, heads[last], _TO_ITS_END)
            last += 1
            if last == len(heads):
                raise DeviceBroken(
                    f"expected chain {heads[at]} back, or one of the {len(heads) - at - 1} behind "
                    f"it, as IN_ORDER has it, got {head}; the device is broken"
                )
        _put(each, last, head, length)
        at = last + 1
    return bytes(each)


def _put(each: bytearray, at: int, head: int, length: int) -> None:
    USED_ELEMENT.pack_into(each, at * USED_ELEMENT.size, head, length)
