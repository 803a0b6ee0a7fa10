"""Forwarding: a guest's command goes to the device as bytes, and the device's answer comes back.

One command at a time, in the order in which the guest sent them, also where it sent many at once: a
guest waits for each as a rule, and some drivers ack wrongly what they find behind one another
(vdpa_sim_net, for one). So each has the same two descriptors and the same room: first the answer,
behind it the command.

Waiting is a short look at the used ring, then the interrupt, which is asked for only then. What the
device does that no device may, or nothing for seconds, ends the forwarding: the buffers are its own
until it is reset. So does who hears otherwise that the device has failed.
"""

import asyncio
import time
from typing import Protocol

from vdpad.backend.faults import NotAnswered
from vdpad.queues.control_queue import ControlQueue, split_ring
from vdpad.virtio.commands import ACK_ERR, ACK_NONE
from vdpad.virtio.rings import DESC_F_NEXT, DESC_F_WRITE, RingGeometry
from vdpad.virtio.split_ring import DESCRIPTOR, INDEX_MASK, USED_ELEMENT

# How long a device may take for a command, in seconds; QEMU gives its own so long.
PATIENCE = 10.0

# How long to look at the ring before sleeping: the event loop is kept from others meanwhile.
_LOOK_NS = 50_000

# How often it is looked meanwhile whether the device was given up, in seconds. An answer wakes at
# once; a wait that can be broken off at once costs each command a seventh of its time.
_LOOK_AGAIN = 0.1

# Room for an answer. The longest there are, statistics of all queues, have some bytes a queue.
_MAX_ANSWERED = 1 << 16

_HEAD = (0).to_bytes(2, "little")


class Forwards(Protocol):
    """What answers the guest's commands."""

    async def forward(self, command: bytes, room: int) -> bytes:
        """The answer to a command: the ack, and what was written behind it.

        Args:
            command: all device-readable bytes, at least one.
            room: how many bytes the guest has for the answer, at least one.

        Raises:
            NotAnswered: there is none, and nothing may be forwarded any more.
        """


class Forwarder:
    """The only user of a CVQ of ours, until the device's reset."""

    def __init__(
        self, queue: ControlQueue, geometry: RingGeometry, *, patience: float = PATIENCE
    ) -> None:
        """
        Args:
            queue: idle; it stays the caller's.
            geometry: its ring's, with two descriptors at least.
            patience: how long the device may take for a command, in seconds.
        """
        self._queue = queue
        self._ring = split_ring(queue)
        self._index = queue.next_index
        self._patience = patience
        self._given_up = ""
        self._look_ns = _LOOK_NS if queue.worth_polling else 0
        room = geometry.buffers
        self._most_answered = min(_MAX_ANSWERED, room.size // 2)
        self._answer_at = room.iova
        self._command_at = room.iova + self._most_answered
        self.idle = asyncio.Lock()
        """Held while a command is in flight, and by whoever needs that none is."""
        self.largest = room.size - self._most_answered
        """Bytes that a command may have."""

    async def forward(self, command: bytes, room: int) -> bytes:
        """Has the device carry out a command.

        One that is too large for the ring's buffers is refused without the device.

        Args:
            command: all device-readable bytes, at least one.
            room: how many bytes the guest has for the answer, at least one.

        Returns:
            the answer: the ack, and what the device wrote behind it.

        Raises:
            NotAnswered: nothing may be forwarded any more. So it is after a cancellation.
        """
        if len(command) > self.largest:
            return bytes((ACK_ERR,))
        room = min(room, self._most_answered)
        async with self.idle:
            if self._given_up:
                raise NotAnswered(self._given_up)
            self._publish(command, room)
            if not self._has_come(self._look_ns):
                await self._sleep()
            return self._answer(room)

    def give_up(self, why: str) -> None:
        """Has `forward` raise NotAnswered for this reason from now on, and soon where it waits.

        For who knows that the device will not answer.
        """
        self._given_up = why

    def _publish(self, command: bytes, room: int) -> None:
        ring, index = self._ring, self._index
        ring.buffers[0] = ACK_NONE
        at = self._most_answered
        ring.buffers[at : at + len(command)] = command
        ring.descriptors[: 2 * DESCRIPTOR.size] = DESCRIPTOR.pack(
            self._command_at, len(command), DESC_F_NEXT, 1
        ) + DESCRIPTOR.pack(self._answer_at, room, DESC_F_WRITE, 0)
        ring.place(index, _HEAD)
        if self._look_ns:
            ring.ask_for_no_interrupt(index)
        else:
            ring.ask_for_interrupt(index + 1)
        ring.publish(index + 1)
        if ring.wants_doorbell((index + 1) & INDEX_MASK, index):
            self._queue.kick()

    def _has_come(self, look_ns: int) -> bool:
        """Whether something has come back, or does within so many nanoseconds."""
        ring, index = self._ring, self._index
        until = time.perf_counter_ns() + look_ns
        while not ring.returned_since(index):
            if time.perf_counter_ns() >= until:
                return False
        return True

    async def _sleep(self) -> None:
        self._ring.ask_for_interrupt(self._index + 1)
        deadline = asyncio.get_running_loop().time() + self._patience
        while not self._has_come(0):
            left = deadline - asyncio.get_running_loop().time()
            if self._given_up:
                raise NotAnswered(self._given_up)
            if left <= 0:
                raise NotAnswered(
                    f"expected an answer to a command within {self._patience:g} s, the device gave "
                    "none; reset it"
                )
            await self._queue.called(min(left, _LOOK_AGAIN))

    def _answer(self, room: int) -> bytes:
        ring, index = self._ring, self._index
        if ring.returned_since(index) != 1:
            raise NotAnswered(
                f"expected one command back, got a used index {ring.used_index()} after {index}; "
                "the device is broken"
            )
        head, written = USED_ELEMENT.unpack(ring.used_elements(index, 1))
        if head:
            raise NotAnswered(
                f"expected the command's descriptor 0 back, got {head}; the device is broken"
            )
        self._index = (index + 1) & INDEX_MASK
        # The ack is what counts, also where a device gives another length.
        return ring.buffers[: max(1, min(written, room))].tobytes()
