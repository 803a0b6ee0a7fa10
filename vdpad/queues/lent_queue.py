"""A control queue that its owner lends: a memfd with the ring, a kick and a call eventfd.

The lender keeps the device and its descriptors; we get our own. Nothing of what came is trusted:

- the memfd must be sealed against shrinking, else cutting it would kill us with SIGBUS;
- the geometry was checked against the memory it names, and that against the memfd's size;
- the descriptors must be eventfds, so that a kick cannot turn into a write to something else;
- the ring must be idle, and where the lender said at which index, it must stand there.

What happens to the memory's contents while we work is the ring's concern.
"""

import errno
import fcntl
import mmap
import os
from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.queues.eventfds import EventfdSender, Waiter, check_eventfd
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.split_ring import RingGeometry


class BadLend(VdpadError):
    """Descriptors or a ring that cannot be used as they were lent."""


@dataclass(frozen=True, slots=True)
class LentDescriptors:
    """What a lender sends, in the order in which it is sent."""

    memory: int
    kick: int
    call: int

    @classmethod
    def from_list(cls, fds: list[int]) -> "LentDescriptors":
        """The three in their order.

        Raises:
            BadLend: there are not three.
        """
        if len(fds) != 3:
            raise BadLend(
                f"expected three descriptors (memory, kick, call), got {len(fds)}; "
                "send them with the request (SCM_RIGHTS)"
            )
        return cls(*fds)

    def duplicate(self) -> "LentDescriptors":
        """The same again, for somebody else to close.

        Raises:
            BadLend: this process has no descriptors left.
        """
        copies: list[int] = []
        try:
            for fd in (self.memory, self.kick, self.call):
                copies.append(os.dup(fd))
        except OSError as error:
            for fd in copies:
                os.close(fd)
            raise BadLend(f"the descriptors cannot be kept: {error.strerror}") from error
        return LentDescriptors(*copies)

    def close(self) -> None:
        """Closes all three."""
        for fd in (self.memory, self.kick, self.call):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Indices:
    """Where the lender says that its ring stands; None where it does not say."""

    next_available: int | None = None
    next_used: int | None = None


class LentQueue:
    """A lent CVQ; implements ControlQueue."""

    def __init__(
        self,
        geometry: RingGeometry,
        descriptors: LentDescriptors,
        indices: Indices,
        *,
        event_idx: bool,
        worth_polling: bool = True,
    ) -> None:
        """Takes over the descriptors, also where it raises.

        Args:
            geometry: a checked one.
            descriptors: closed by `close`.
            indices: what the lender says of the ring.
            event_idx: RING_EVENT_IDX was negotiated.
            worth_polling: the device works on another thread than ours.

        Raises:
            BadLend: what came cannot be used. Nothing has been written anywhere.
        """
        self._descriptors: LentDescriptors | None = descriptors
        self._worth_polling = worth_polling
        self._map: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._ring: DriverRing | None = None
        self._call = Waiter(descriptors.call)
        try:
            check_eventfd(descriptors.kick, "kick")
            check_eventfd(descriptors.call, "call")
            self._kick = EventfdSender(descriptors.kick)
            self._map = _map(descriptors.memory, geometry.memory.size)
            self._view = memoryview(self._map)
            self._ring = DriverRing(self._view, geometry, event_idx=event_idx)
            self._next_index = _idle_index(self._ring, indices)
        except VdpadError as error:
            self.close()
            raise BadLend(str(error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def ring(self) -> DriverRing:
        """The driver's side of the ring."""
        if self._ring is None:
            raise BadLend("the queue is closed; lend it again")
        return self._ring

    @property
    def next_index(self) -> int:
        """Both indices of the ring as it was lent."""
        return self._next_index

    @property
    def worth_polling(self) -> bool:
        """Whether the device works while we look."""
        return self._worth_polling

    def kick(self) -> None:
        """Rings the doorbell."""
        self._kick()

    async def called(self, seconds: float) -> None:
        """Returns when the device has interrupted, or after so many seconds."""
        await self._call.wait(seconds)

    def close(self) -> None:
        """Unmaps the memory and closes the descriptors."""
        self._call.close()
        if self._ring is not None:
            self._ring.release()
            self._ring = None
        if self._view is not None:
            self._view.release()
            self._view = None
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._descriptors is not None:
            self._descriptors.close()
            self._descriptors = None


def memory_identity(descriptors: LentDescriptors) -> tuple[int, int]:
    """What tells one memfd from another, however often it was duplicated."""
    status = os.fstat(descriptors.memory)
    return status.st_dev, status.st_ino


def _map(fd: int, size: int) -> mmap.mmap:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BadLend(f"expected a memfd as the memory, got {error.strerror}") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise BadLend("expected the memfd sealed with F_SEAL_SHRINK, it is not; seal it")
    there = os.fstat(fd).st_size
    if there < size:
        raise BadLend(f"expected a memfd of at least {size} bytes (memory.size), got {there}")
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        raise BadLend(f"the memfd cannot be mapped for writing: {name}") from error


def _idle_index(ring: DriverRing, said: Indices) -> int:
    available = ring.available_index
    used = ring.used_index()
    if available != used:
        raise BadLend(
            f"expected an idle ring, got available index {available} and used index {used}; "
            "lend it when all its chains have been used"
        )
    for name, index in (("next_available", said.next_available), ("next_used", said.next_used)):
        if index is not None and index != available:
            raise BadLend(f"{name}: expected {available} as in the ring, got {index}")
    return available
