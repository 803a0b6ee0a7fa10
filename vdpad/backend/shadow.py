"""The shadow: the guest's CVQ, of which we are the device, in front of the device's own.

How it works. A command is *taken* from the guest's ring as a copy, *forwarded* to the device,
*told* to whoever writes down what the guest has set, and then *returned* to the guest with the
device's answer. All that a guest could see of it comes after what we have to know of it, so that a
back end that dies in between knows of every command that the guest knows to be done.

Commands are served in their order, each as a whole. So where the guest's ring stands is its used
index: a command that was taken and not returned is taken anew at the next start.

A guest that waits for each command sends the next one at once. So after a command the guest's ring
is looked at for a little while, in turns with the rest of the process, before a kick is asked for
and waited for: that is what costs most of a command's time.

A chain that makes no sense ends the shadow, and so does a device that gives no answer. It *fails*,
once, and the guest's ring is left as it is until the device is reset.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

from vdpad.backend.forwarder import Forwards
from vdpad.backend.marking import Wrote
from vdpad.errors import VdpadError
from vdpad.queues.eventfds import EventfdSender, Waiter, kicks_that_do_not_block
from vdpad.vhost_user.device import GuestVring
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import Chain
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region

# Class and command (virtio 1.4, 5.1.6.5).
_LEAST = 2

# How long to look for another command after one; the guest need not kick meanwhile.
_LOOK_NS = 50_000

# A ring without a kick is looked at this often; one with a kick too, in case one was lost. In
# seconds.
_POLL = 0.001
_IDLE = 60.0

Acknowledged = Callable[[bytes, bytes], None]
"""Is given each command and the device's answer to it, before the guest is."""


class Shadow:
    """The guest's CVQ, from a start to a stop. It serves once it has begun."""

    def __init__(
        self,
        memory: GuestMemory,
        vring: GuestVring,
        features: FeatureSet,
        forwarder: Forwards,
        acknowledged: Acknowledged,
        failed: Callable[[VdpadError], None],
        wrote: Wrote,
    ) -> None:
        """
        Args:
            memory: the guest's.
            vring: its ring; the descriptors stay the caller's, until `stop`.
            features: what the guest took.
            forwarder: to the device.
            acknowledged: called with each command.
            failed: called once, where it serves no more.
            wrote: called with each place in the guest's memory, once it was written.

        Raises:
            BadGeometry: the ring cannot be where it is said to be.
        """
        self._ring = DeviceRing(
            memory,
            vring.addresses,
            next_available=vring.base,
            event_idx=Feature.RING_EVENT_IDX in features,
            indirect=Feature.RING_INDIRECT_DESC in features,
        )
        self._forwarder = forwarder
        self._acknowledged = acknowledged
        self._failed = failed
        self._wrote = wrote
        self._used = vring.addresses.parts()["used"]
        self._kicked = None if vring.kick is None else Waiter(vring.kick, paced=False)
        self._task: asyncio.Task[None] | None = None
        self._serving = False
        self._stopping = False
        self.set_call(vring.call)

    def set_call(self, call: int | None) -> None:
        """Interrupts the guest by this from now on, or not at all."""
        self._call = None if call is None else EventfdSender(call)

    def begin(self) -> None:
        """Serves from now on. May be called again."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="shadow")

    async def stop(self) -> int:
        """Finishes the command that is being served, and lets go of memory and descriptors.

        On cancellation that command may not be finished, and all is let go of.

        Returns:
            where the guest's ring stands: 0 … 65535.
        """
        self._stopping = True
        task = self._task
        try:
            if task is not None:
                if not self._serving:
                    task.cancel()
                await asyncio.wait([task])
        finally:
            if task is not None:
                task.cancel()
            if self._kicked is not None:
                self._kicked.close()
            base = self._ring.next_used
            self._ring.release()
            self._wrote(self._used)
        return base

    async def _run(self) -> None:
        try:
            await self._serve()
        except VdpadError as error:
            self._failed(error)

    async def _serve(self) -> None:
        look_until = 0
        while True:
            chains = self._ring.take()
            for chain in chains:
                self._serving = True
                await self._serve_one(chain)
                self._serving = False
                if self._stopping:
                    return
            if chains:
                look_until = time.perf_counter_ns() + _LOOK_NS
            if time.perf_counter_ns() < look_until:
                # Others have their turn, also where a guest always has another one.
                await asyncio.sleep(0)
            else:
                is_idle = self._ring.idle()
                self._wrote(self._used)
                if is_idle:
                    await self._kick()

    async def _serve_one(self, chain: Chain) -> None:
        if len(chain.readable) < _LEAST:
            raise BadChain(
                f"chain {chain.head}: expected a class and a command, got {len(chain.readable)} "
                "device-readable bytes"
            )
        answer = await self._forwarder.forward(chain.readable, chain.room)
        self._acknowledged(chain.readable, answer)
        self._ring.answer(chain, answer)
        self._ring.put(chain.head, len(answer))
        for part in _written(chain, len(answer)):
            self._wrote(part)
        self._wrote(self._used)
        if self._ring.wants_interrupt() and self._call is not None:
            with kicks_that_do_not_block():
                self._call()

    async def _kick(self) -> None:
        if self._kicked is None:
            await asyncio.sleep(_POLL)
        else:
            await self._kicked.wait(_IDLE)


def _written(chain: Chain, length: int) -> Iterator[Region]:
    """Where an answer of so many bytes went."""
    for buffer in chain.writable:
        size = min(buffer.size, length)
        yield Region(buffer.iova, size)
        length -= size
