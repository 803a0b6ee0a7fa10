"""The rings of a session: what the front end has said of each.

How it works. A ring is *stopped* or *started*, and *enabled* or *disabled*; one says nothing of the
other. It starts with the kick that it is given, and stops when its base is asked for. What a front
end sets of a ring stands until it sets it anew, also over a stop: its size, its addresses, its
descriptors. A device runs with the rings that are started and have a size, addresses, and both a
kick and a call, or the word that there is none.

Only the session changes any of it. Descriptors that are replaced are closed on threads.

Source: QEMU's docs/interop/vhost-user.rst, "Ring states".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vdpad.vhost_user.device import GuestVring
from vdpad.vhost_user.faults import NotServed
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import MAX_RING_SIZE, Region
from vdpad.virtio.split_ring import INDEX_MASK, SplitAddresses
from vdpad.wire.descriptors import CLOSER


@dataclass(frozen=True, slots=True)
class VringView:
    """What there is to tell of a ring."""

    index: int
    size: int
    """Entries; 0 where it was never set."""
    base: int
    is_enabled: bool
    is_started: bool


@dataclass(slots=True)
class _Ring:
    size: int = 0
    base: int = 0
    lost: str = ""
    """Why nobody knows where the device has left it, until the front end says it."""
    parts: tuple[int, int, int] | None = None
    """Guest addresses of descriptors, available and used ring."""
    is_enabled: bool = False
    is_started: bool = False
    has_call: bool = False
    kick: int | None = None
    call: int | None = None
    error: int | None = None


class GuestVrings:
    """All rings of a session, by index."""

    def __init__(self, number: int, uid: int) -> None:
        """All stopped and disabled.

        Args:
            number: how many there are.
            uid: of whoever sends the descriptors.
        """
        self._rings = [_Ring() for _ in range(number)]
        self._uid = uid

    def __iter__(self) -> Iterator[VringView]:
        """What there is to tell of each."""
        for index, ring in enumerate(self._rings):
            yield VringView(index, ring.size, ring.base, ring.is_enabled, ring.is_started)

    def check_index(self, index: int) -> None:
        """Refuses a ring that there is not.

        Raises:
            NotServed: it is so.
        """
        if index >= len(self._rings):
            raise NotServed(f"expected a ring below {len(self._rings)}, got {index}")

    # --- what a front end sets; indices are checked ---

    def set_size(self, index: int, size: int) -> None:
        """SET_VRING_NUM.

        Raises:
            NotServed: no power of two up to 32768.
        """
        if not 1 <= size <= MAX_RING_SIZE or size & (size - 1):
            raise NotServed(
                f"ring {index}: expected a power of two up to {MAX_RING_SIZE}, got {size} entries"
            )
        self._rings[index].size = size

    def set_parts(self, index: int, descriptors: int, available: int, used: int) -> None:
        """SET_VRING_ADDR, by guest addresses."""
        self._rings[index].parts = (descriptors, available, used)

    def has_parts(self, index: int, descriptors: int, available: int, used: int) -> bool:
        """Whether these are what was set before."""
        return self._rings[index].parts == (descriptors, available, used)

    def set_base(self, index: int, base: int) -> None:
        """SET_VRING_BASE.

        Raises:
            NotServed: no index of a split ring.
        """
        if base > INDEX_MASK:
            raise NotServed(f"ring {index}: expected a base of 16 bits, got {base:#x}")
        self._rings[index].base = base
        self._rings[index].lost = ""

    def set_kick(self, index: int, fd: int | None) -> None:
        """SET_VRING_KICK: the ring is started by it."""
        ring = self._rings[index]
        self._close(ring.kick)
        ring.kick = fd
        ring.is_started = True

    def set_call(self, index: int, fd: int | None) -> None:
        """SET_VRING_CALL."""
        ring = self._rings[index]
        self._close(ring.call)
        ring.call = fd
        ring.has_call = True

    def set_error(self, index: int, fd: int | None) -> None:
        """SET_VRING_ERR."""
        ring = self._rings[index]
        self._close(ring.error)
        ring.error = fd

    def enable(self, index: int, enabled: bool) -> None:
        """SET_VRING_ENABLE."""
        self._rings[index].is_enabled = enabled

    def enable_all(self) -> None:
        """What a front end implies that has not taken PROTOCOL_FEATURES."""
        for ring in self._rings:
            ring.is_enabled = True

    # --- starting and stopping ---

    def is_ready(self, index: int) -> bool:
        """Whether a device could run with this ring."""
        ring = self._rings[index]
        return ring.is_started and ring.has_call and ring.size > 0 and ring.parts is not None

    def base(self, index: int) -> int:
        """Where the ring stands.

        Raises:
            NotServed: nobody knows.
        """
        ring = self._rings[index]
        if ring.lost:
            raise NotServed(f"ring {index}: {ring.lost}")
        return ring.base

    def ready(self, memory: GuestMemory) -> tuple[GuestVring, ...]:
        """All rings that a device can run with.

        Raises:
            OutsideMemory: one of them is not within the memory.
        """
        vrings = tuple(
            self._vring(index) for index in range(len(self._rings)) if self.is_ready(index)
        )
        for vring in vrings:
            for part in vring.addresses.parts().values():
                memory.check(part.iova, part.size)
        return vrings

    def places(self, indices: Iterable[int]) -> list[Region]:
        """Where the parts of some rings lie, which are ready."""
        return [part for index in indices for part in self._vring(index).addresses.parts().values()]

    def stop(self, index: int) -> None:
        """GET_VRING_BASE."""
        self._rings[index].is_started = False

    def stop_all(self) -> None:
        """What SET_STATUS 0 and RESET_DEVICE come to."""
        for ring in self._rings:
            ring.is_started = False

    def set_bases(self, bases: Mapping[int, int]) -> None:
        """Where a device that was stopped has left its rings."""
        for index, base in bases.items():
            self._rings[index].base = base

    def lose_bases(self, indices: Iterable[int], why: str) -> None:
        """A device that was stopped does not tell where it has left these."""
        for index in indices:
            self._rings[index].base = 0
            self._rings[index].lost = why

    def reset(self) -> None:
        """RESET_DEVICE: stopped, disabled, at the beginning."""
        for ring in self._rings:
            ring.is_started = ring.is_enabled = False
            ring.base = 0
            ring.lost = ""

    def close(self) -> None:
        """Has all descriptors closed."""
        for ring in self._rings:
            for fd in (ring.kick, ring.call, ring.error):
                self._close(fd)
            ring.kick = ring.call = ring.error = None

    def _vring(self, index: int) -> GuestVring:
        ring = self._rings[index]
        assert ring.parts is not None
        addresses = SplitAddresses(ring.size, *ring.parts)
        return GuestVring(
            index, addresses, ring.base, ring.is_enabled, ring.kick, ring.call, ring.error
        )

    def _close(self, fd: int | None) -> None:
        if fd is not None:
            CLOSER.close(self._uid, [fd])
