"""A control queue that its owner lends: a memfd with the ring, a kick and a call eventfd.

The lender keeps the device and its descriptors; we get our own. Nothing of what came is trusted:

- what each descriptor is, is asked by what cannot sleep, before anything else is done with it: a
  file on FUSE answers fstat when its server pleases;
- the memfd must be one that cannot be cut under us, with the ring's pages in it (lent_memory.py);
- the geometry was checked against the memory it names, and that against the memfd's size;
- the descriptors must be eventfds, so that a kick cannot turn into a write to something else;
- the ring must be idle, and stand where the lender said (lent_indices.py).

What happens to the memory's contents while we work is the ring's concern.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import Lent
from vdpad.queues.eventfds import EventfdSender, Waiter, check_eventfd, kicks_that_do_not_block
from vdpad.queues.lent_indices import Indices, idle_index
from vdpad.queues.lent_memory import BadLend, RingMapping, check_memfd, seals_of
from vdpad.virtio.driver_rings import AnyDriverRing, driver_ring
from vdpad.virtio.rings import RingGeometry
from vdpad.wire.descriptors import CLOSER

# Memory, kick and call.
_DESCRIPTORS = 3

# The lender of a device of our own.
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class LentDescriptors:
    """What a lender sends, in the order in which it is sent."""

    memory: int
    kick: int
    call: int
    lender: int = _NOBODY
    """The uid of whoever lends them, whose thread closes them."""

    @classmethod
    def from_list(cls, fds: list[int], lender: int = _NOBODY) -> "LentDescriptors":
        """The three in their order.

        Args:
            fds: as they came.
            lender: the uid of whoever sent them; -1 where nobody else did.

        Raises:
            BadLend: there are not three.
        """
        if len(fds) != _DESCRIPTORS:
            raise BadLend(
                f"expected three descriptors (memory, kick, call), got {len(fds)}; "
                "send them with the request (SCM_RIGHTS)"
            )
        memory, kick, call = fds
        return cls(memory, kick, call, lender)

    def check(self) -> Lent:
        """Refuses what is no sealed memfd of ordinary pages and two eventfds. Does not sleep.

        Raises:
            BadLend: by the name of what is wrong.
        """
        check_memfd(self.memory)
        try:
            kick = check_eventfd(self.kick, "kick")
            call = check_eventfd(self.call, "call")
        except VdpadError as error:
            raise BadLend(str(error)) from error
        status = os.fstat(self.memory)
        return Lent(status.st_dev, status.st_ino, kick, call)

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
        return LentDescriptors.from_list(copies, self.lender)

    def close(self) -> None:
        """Has all three closed, where nobody waits: memory goes with its last copy, in its time."""
        CLOSER.close(self.lender, (self.memory, self.kick, self.call))


class LentQueue:
    """A lent CVQ; implements ControlQueue."""

    def __init__(
        self,
        geometry: RingGeometry,
        descriptors: LentDescriptors,
        indices: Indices,
        *,
        event_idx: bool,
        in_order: bool = False,
        worth_polling: bool = True,
    ) -> None:
        """Takes over the descriptors, also where it raises.

        Args:
            geometry: a checked one.
            descriptors: closed by `close`.
            indices: what the lender says of the ring.
            event_idx: RING_EVENT_IDX was negotiated.
            in_order: IN_ORDER was negotiated.
            worth_polling: the device works on another thread than ours.

        Raises:
            BadLend: what came cannot be used. Nothing has been written anywhere.
        """
        self._worth_polling = worth_polling
        self._undo = ExitStack()
        self._undo.callback(descriptors.close)
        try:
            self._lent = descriptors.check()
            self._call = Waiter(descriptors.call)
            self._kick = EventfdSender(descriptors.kick)
            mapping = RingMapping(descriptors.memory, geometry)
            self._undo.callback(mapping.close)
            ring = driver_ring(geometry, mapping.parts, event_idx=event_idx, in_order=in_order)
            self._ring: AnyDriverRing | None = ring
            self._undo.callback(ring.release)
            self._next_index = idle_index(ring, indices)
        except BaseException:
            self._undo.close()
            raise
        self._in_use = ExitStack()
        self._in_use.callback(self._call.close)
        self._in_use.enter_context(kicks_that_do_not_block())

    @property
    def ring(self) -> AnyDriverRing:
        """The driver's side of the ring."""
        if self._ring is None:
            raise BadLend("the queue is closed; lend it again")
        return self._ring

    @property
    def next_index(self) -> int:
        """Where the ring stood as it was lent."""
        return self._next_index

    @property
    def lent(self) -> Lent:
        """What it was lent as."""
        return self._lent

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
        """Ends the watch for interrupts, and has memory and descriptors let go of in a moment.

        The ring is its lender's again when the reply is out, which waits for no unmapping. May be
        called again.
        """
        if self._ring is not None:
            self._ring = None
            self._in_use.close()
            CLOSER.let_go(self._undo.close, _DESCRIPTORS)


def memory_identity(descriptors: LentDescriptors) -> tuple[int, int]:
    """What tells one memfd from another, however often it was duplicated.

    Raises:
        BadLend: it is none.
    """
    seals_of(descriptors.memory)
    status = os.fstat(descriptors.memory)
    return status.st_dev, status.st_ino
