"""Descriptors of a program's banks, as they are copied into the ring.

Each command is a pair of descriptors, its bytes and one ack byte, or for a legacy device up to four
(framing.py). A bank's buffers hold the acks first and then the commands, so where its chains point
to follows from the sizes of the commands' buffers alone, and banks that are alike in these share
one image.

In a split ring a descriptor stays where it is until it is written anew: a bank whose segment says
the same already has none. In a packed ring banks go round all of it and the device writes over
them, so that each has its own, for both wrap counters.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from vdpad.virtio.driver_ring import command_descriptors, legacy_descriptors
from vdpad.virtio.framing import DESCRIPTORS, LEGACY_DESCRIPTORS
from vdpad.virtio.packed_driver_ring import RETURNED_ELEMENT, Laps, packed_command_descriptors
from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.rings import RingGeometry
from vdpad.virtio.split_ring import USED_ELEMENT

ACK = 1
"""Bytes of an ack."""

Buffers = tuple[tuple[int, ...], ...]
"""Of each command the sizes of its device-readable buffers, in bytes; of legacy ones several."""


class Image(NamedTuple):
    """A bank's descriptors."""

    descriptors: bytes | None
    """Of a split ring; None where the segment's already say the same."""
    laps: Laps
    """Of a packed ring; empty for others."""


class Images(ABC):
    """What a layout makes of chains. Their ids are their heads, or would be in a split ring."""

    per_command = DESCRIPTORS
    """Descriptors from one head to the next."""

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
    def image(self, first_head: int, buffers_at: int, commands: Buffers) -> Image:
        """The descriptors of the bank that follows.

        Args:
            first_head: of its segment.
            buffers_at: where its buffers begin, in bytes from the start of the ring's.
            commands: the bank's.
        """

    def _chains(
        self, first_head: int, buffers_at: int, commands: Buffers
    ) -> Iterator[tuple[int, list[tuple[int, int]], int]]:
        """Of each its head, its readable buffers (address, length), and where its ack goes."""
        acks_at = self._buffers_iova + buffers_at
        address = acks_at + len(commands) * ACK
        for slot, sizes in enumerate(commands):
            readable = []
            for size in sizes:
                readable.append((address, size))
                address += size
            yield first_head + slot * self.per_command, readable, acks_at + slot

    def _pairs(
        self, first_head: int, buffers_at: int, commands: Buffers
    ) -> Iterator[tuple[int, int, int, int]]:
        """The same, where each has one readable buffer."""
        for head, ((address, length),), ack in self._chains(first_head, buffers_at, commands):
            yield head, address, length, ack


class _SplitImages(Images):
    def __init__(self, buffers_iova: int) -> None:
        super().__init__(buffers_iova)
        self._made: dict[tuple[int, Buffers], bytes] = {}
        self._in_place: dict[int, bytes] = {}

    @staticmethod
    def completion(head: int) -> bytes:
        return USED_ELEMENT.pack(head, ACK)

    def image(self, first_head: int, buffers_at: int, commands: Buffers) -> Image:
        key = (first_head, commands)
        if key not in self._made:
            self._made[key] = self._descriptors(first_head, buffers_at, commands)
        made = self._made[key]
        if self._in_place.get(first_head, b"").startswith(made):
            return Image(None, (b"", b""))
        self._in_place[first_head] = made
        return Image(made, (b"", b""))

    def _descriptors(self, first_head: int, buffers_at: int, commands: Buffers) -> bytes:
        return command_descriptors(self._pairs(first_head, buffers_at, commands))


class _LegacyImages(_SplitImages):
    per_command = LEGACY_DESCRIPTORS

    def _descriptors(self, first_head: int, buffers_at: int, commands: Buffers) -> bytes:
        chains = self._chains(first_head, buffers_at, commands)
        return legacy_descriptors(chains, self.per_command)


class _PackedImages(Images):
    def __init__(self, buffers_iova: int) -> None:
        super().__init__(buffers_iova)
        self._made: dict[tuple[int, Buffers], Image] = {}

    @staticmethod
    def completion(head: int) -> bytes:
        return RETURNED_ELEMENT.pack(ACK, head, 0)

    def image(self, first_head: int, buffers_at: int, commands: Buffers) -> Image:
        key = (first_head, commands)
        if key not in self._made:
            chains = self._pairs(first_head, buffers_at, commands)
            self._made[key] = Image(None, packed_command_descriptors(chains))
        return self._made[key]


def images_for(geometry: RingGeometry, *, legacy: bool) -> Images:
    """Those of one program, whose banks must be asked for in their order.

    Args:
        geometry: the ring's.
        legacy: commands are framed as a legacy device wants them; its ring is a split one.
    """
    kind: type[Images] = _LegacyImages if legacy else _SplitImages
    if isinstance(geometry, PackedGeometry):
        kind = _PackedImages
    return kind(geometry.buffers.iova)
