"""Where odd chains' buffers lie, whatever ring they go through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vdpad.virtio.commands import ACK_NONE
from vdpad.virtio.rings import DESC_F_INDIRECT, DESC_F_WRITE, BadGeometry, RingGeometry, align_up
from vdpad.virtio.split_ring import DESCRIPTOR

OddBuffer = tuple[int, int, int]
"""A buffer: address, length in bytes, and which of WRITE and INDIRECT it has."""

Table = Callable[[Sequence[OddBuffer]], bytes]
"""The indirect table of such buffers, which differs between the rings' layouts."""


@dataclass(frozen=True, slots=True)
class OddChain:
    """A chain, buffer by buffer."""

    readable: tuple[bytes, ...]
    """The device-readable buffers."""
    writable: tuple[int, ...] = (1,)
    """The device-writable ones, by their sizes in bytes."""
    indirect: bool = False
    """Whether its descriptors stand in a table of their own."""


class LaidOut:
    """Chains as they stand in the ring's buffers."""

    def __init__(self, geometry: RingGeometry, chains: Sequence[OddChain], table: Table) -> None:
        """
        Args:
            geometry: of the ring.
            chains: what is to be sent.
            table: makes indirect tables.

        Raises:
            BadGeometry: they do not fit.
        """
        self.buffers = bytearray()
        self.answers_at: list[slice] = []
        """The device-writable part of each, in the ring's buffers; 0xff from the start."""
        self._base = geometry.buffers.iova
        self.chains: list[Sequence[OddBuffer]] = [self._add(each, table) for each in chains]
        """What each has of the ring's own descriptors."""
        count = sum(map(len, self.chains))
        if count > geometry.size:
            raise BadGeometry(f"ring.size: expected at least {count}, got {geometry.size}")
        if len(self.buffers) > geometry.buffers.size:
            raise BadGeometry(
                f"ring.buffers: expected room for {len(self.buffers)} bytes, "
                f"got {geometry.buffers.size}"
            )

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of each chain's first descriptor, and in a packed ring its buffer id."""
        lengths = list(map(len, self.chains))
        return tuple(sum(lengths[:at]) for at in range(len(lengths)))

    def _add(self, chain: OddChain, table: Table) -> Sequence[OddBuffer]:
        parts = [(self._put(each), len(each), 0) for each in chain.readable]
        answer_at = len(self.buffers)
        parts += [
            (self._put(bytes([ACK_NONE]) * size), size, DESC_F_WRITE) for size in chain.writable
        ]
        self.answers_at.append(slice(answer_at, len(self.buffers)))
        if not chain.indirect:
            return parts
        descriptors = table(parts)
        self.buffers.extend(bytes(align_up(len(self.buffers), DESCRIPTOR.size) - len(self.buffers)))
        return [(self._put(descriptors), len(descriptors), DESC_F_INDIRECT)]

    def _put(self, data: bytes) -> int:
        at = self._base + len(self.buffers)
        self.buffers += data
        return at
