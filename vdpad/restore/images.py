"""Descriptors of a program's banks, as they are copied into the ring.

Each command is a pair of descriptors, its bytes and one ack byte. A bank's buffers hold the acks
first and then the commands, so where its chains point to follows from the commands' lengths alone,
and banks that are alike in these share one image.

In a split ring a descriptor stays where it is until it is written anew: a bank whose segment says
the same already has none. In a packed ring banks go round all of it and the device writes over
them, so that each has its own, for both wrap counters.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from vdpad.virtio.driver_ring import command_descriptors
from vdpad.virtio.packed_driver_ring import RETURNED_ELEMENT, Laps, packed_command_descriptors
from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.rings import RingGeometry
from vdpad.virtio.split_ring import USED_ELEMENT

DESCRIPTORS_PER_COMMAND = 2
ACK = 1
"""Bytes of an ack."""


class Image(NamedTuple):
    """A bank's descriptors."""

    descriptors: bytes | None
    """Of a split ring; None where the segment's already say the same."""
    laps: Laps
    """Of a packed ring; empty for others."""


class Images(ABC):
    """What a layout makes of chains. Their ids are their heads, or would be in a split ring."""

    def __init__(self, buffers_iova: int) -> None:
        """
        Args:
            buffers_iova: where the ring's buffers begin, for the device.
        """
        self._buffers_iova = buffers_iova

    @staticmethod
    @abstractmethod
    def completion(head: int) -> bytes:
        """What tells that a chain is back with its ack."""

    @abstractmethod
    def image(self, first_head: int, buffers_at: int, lengths: tuple[int, ...]) -> Image:
        """The descriptors of the bank that follows.

        Args:
            first_head: of its segment.
            buffers_at: where its buffers begin, in bytes from the start of the ring's.
            lengths: bytes of its commands.
        """

    def _chains(
        self, first_head: int, buffers_at: int, lengths: tuple[int, ...]
    ) -> Iterator[tuple[int, int, int, int]]:
        acks_at = self._buffers_iova + buffers_at
        address = acks_at + len(lengths) * ACK
        for slot, length in enumerate(lengths):
            yield first_head + slot * DESCRIPTORS_PER_COMMAND, address, length, acks_at + slot
            address += length


class _SplitImages(Images):
    def __init__(self, buffers_iova: int) -> None:
        super().__init__(buffers_iova)
        self._made: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._in_place: dict[int, bytes] = {}

    @staticmethod
    def completion(head: int) -> bytes:
        return USED_ELEMENT.pack(head, ACK)

    def image(self, first_head: int, buffers_at: int, lengths: tuple[int, ...]) -> Image:
        key = (first_head, lengths)
        if key not in self._made:
            self._made[key] = command_descriptors(self._chains(first_head, buffers_at, lengths))
        made = self._made[key]
        if self._in_place.get(first_head, b"").startswith(made):
            return Image(None, (b"", b""))
        self._in_place[first_head] = made
        return Image(made, (b"", b""))


class _PackedImages(Images):
    def __init__(self, buffers_iova: int) -> None:
        super().__init__(buffers_iova)
        self._made: dict[tuple[int, tuple[int, ...]], Image] = {}

    @staticmethod
    def completion(head: int) -> bytes:
        return RETURNED_ELEMENT.pack(ACK, head, 0)

    def image(self, first_head: int, buffers_at: int, lengths: tuple[int, ...]) -> Image:
        key = (first_head, lengths)
        if key not in self._made:
            chains = self._chains(first_head, buffers_at, lengths)
            self._made[key] = Image(None, packed_command_descriptors(chains))
        return self._made[key]


def images_for(geometry: RingGeometry) -> Images:
    """Those of one program, whose banks must be asked for in their order."""
    kind = _PackedImages if isinstance(geometry, PackedGeometry) else _SplitImages
    return kind(geometry.buffers.iova)
