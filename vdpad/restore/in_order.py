"""What a device with IN_ORDER tells, read as if it had told of each chain.

Such a device returns chains in the order in which they were made available, and of a batch it may
tell the last one alone: where it would have told of the first, and then it goes on behind the whole
batch (virtio 1.4, 2.7.9 and 2.8.9). The others count as returned, and the places where they would
have been told of hold whatever was there before.
"""

from collections.abc import Callable

from vdpad.restore.faults import DeviceFault

_ELEMENT = 8


def each_told(expected: bytes, told: bytes, name_of: Callable[[bytes], int]) -> bytes:
    """What a device would have written that returns chains one by one.

    Args:
        expected: that, if it is in order with an ack's length.
        told: what is there, of as many chains, of which those in the midst of a batch are not.
        name_of: the id in one of these.

    Raises:
        DeviceFault: what is told is not of one of these chains, or of an earlier one than is due.
    """
    if told == expected:
        return told
    size = len(expected)
    due = {name_of(expected[at : at + _ELEMENT]): at for at in range(0, size, _ELEMENT)}
    each = bytearray(expected)
    at = 0
    while at < size:
        element = told[at : at + _ELEMENT]
        last = due.get(name_of(element), -1)
        if last < at:
            first = name_of(expected[at : at + _ELEMENT])
            raise DeviceFault(
                f"it returned descriptor {name_of(element)} where IN_ORDER has {first}, or one of "
                f"the {(size - at) // _ELEMENT - 1} behind that"
            )
        each[last : last + _ELEMENT] = element
        at = last + _ELEMENT
    return bytes(each)
