"""The queues of a device: where their rings lie, how they notify, which of them work.

A ring is set while the device is NEGOTIATED, and may be set anew while it is SUSPENDED. A reset
undoes all of it in the device, but vhost keeps the eventfds of the start before. So `set` says
everything each time, and nothing is done to a queue whose ring was not set since the last reset.

Source: Linux 6.12, drivers/vhost/vdpa.c (vhost_vdpa_vring_ioctl), drivers/vdpa/vdpa_sim/vdpa_sim.c,
drivers/vdpa/virtio_pci/vp_vdpa.c.
"""

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.errors import BadVring, OutOfOrder, Unsupported
from vdpad.queues.vhost_vdpa.lifecycle import UP, DevicePhase, Lifecycle
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.uapi import UNBIND
from vdpad.virtio.rings import BadGeometry


class Vrings:
    """All queues of one device, by index. Not for two threads at once."""

    def __init__(self, node: Node, lifecycle: Lifecycle) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._with_ring: set[int] = set()
        self._largest: dict[int, int] = {}
        self._with_call: set[int] = set()

    def forget(self) -> None:
        """After a reset: no ring is set any more."""
        self._with_ring.clear()
        self._largest.clear()
        self._with_call.clear()

    def largest(self, queue: int) -> int:
        """How many entries the queue's ring may have. By what was negotiated, so after it."""
        self._lifecycle.expect("vrings.largest", *UP)
        # Asked once, and before the ring is set: the device then says what it was set to.
        if queue not in self._largest:
            self._largest[queue] = self._ask_largest(queue)
        return self._largest[queue]

    def set(self, queue: int, vring: Vring) -> None:
        """Tells the device of a queue's ring.

        A device that was suspended may go by the old ring until the queue is disabled and enabled
        again, as vdpa_sim does. Where this raises, the ring is to be set again.

        Raises:
            BadGeometry: it is no ring.
            BadVring: the device takes none so large, or none that begins there.
            Unsupported: its driver begins a ring nowhere but at 0.
        """
        self._lifecycle.expect("vrings.set", DevicePhase.NEGOTIATED, DevicePhase.SUSPENDED)
        if self._lifecycle.phase is DevicePhase.SUSPENDED:
            self._expect_set("vrings.set", queue)
        self._check(queue, vring)
        node = self._node
        self._give_call("vrings.set", queue, vring.call)
        node.set_vring_num(queue, vring.ring.size)
        node.set_vring_base(queue, vring.base)
        node.set_vring_addr(queue, vring.ring)
        node.set_vring_kick(queue, or_unbind(vring.kick))
        self._with_ring.add(queue)

    def set_kick(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for available chains, or none."""
        self._expect_set("vrings.set_kick", queue)
        self._node.set_vring_kick(queue, or_unbind(eventfd))

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for interrupts, or none for the time being.

        Raises:
            OutOfOrder: the device runs, and the queue had none at DRIVER_OK.
        """
        self._expect_set("vrings.set_call", queue)
        self._give_call("vrings.set_call", queue, eventfd)

    def enable(self, queue: int) -> None:
        """Lets the device work on the queue, from DRIVER_OK on.

        A device that runs already need not look at what was made available before: kick it once.
        """
        self._expect_set("vrings.enable", queue)
        self._node.set_vring_enable(queue, enabled=True)

    def disable(self, queue: int) -> None:
        """Ends the device's work on the queue.

        Raises:
            DeviceRefused: that has broken the device, as it does virtio-pci's, which know no way
                back but a reset.
        """
        self._expect_set("vrings.disable", queue)
        before = self._lifecycle.status()
        self._node.set_vring_enable(queue, enabled=False)
        self._lifecycle.expect_status(before, f"disabling queue {queue}")

    def base(self, queue: int) -> int:
        """Where the device goes on (`Vring.base`); asked while it stands still.

        Raises:
            Unsupported: its driver does not tell.
        """
        self._lifecycle.expect("vrings.base", DevicePhase.NEGOTIATED, DevicePhase.SUSPENDED)
        return self._node.get_vring_base(queue)

    def _expect_set(self, what: str, queue: int) -> None:
        self._lifecycle.expect(what, *UP)
        if queue not in self._with_ring:
            raise OutOfOrder(
                f"{what}: expected queue {queue} to have a ring, it has none since the last reset; "
                "set it"
            )

    def _check(self, queue: int, vring: Vring) -> None:
        vring.ring.check()
        largest, size = self.largest(queue), vring.ring.size
        if size > largest:
            raise BadVring(f"queue {queue}: expected at most {largest} entries, got {size}")
        try:
            vring.ring.check_base(vring.base)
        except BadGeometry as error:
            raise BadVring(f"queue {queue}: {error}") from error

    def _ask_largest(self, queue: int) -> int:
        try:
            return self._node.get_vring_size(queue)
        except Unsupported:
            return self._node.get_vring_num()

    def _give_call(self, what: str, queue: int, eventfd: int | None) -> None:
        # vp_vdpa allocates interrupts at DRIVER_OK, for the queues that have a call by then.
        if self._lifecycle.phase is not DevicePhase.NEGOTIATED:
            if eventfd is not None and queue not in self._with_call:
                raise OutOfOrder(
                    f"{what}: expected queue {queue} to have had a call eventfd at DRIVER_OK, it "
                    "had none, and drivers interrupt only for those that had; give it one before"
                )
        elif eventfd is None:
            self._with_call.discard(queue)
        else:
            self._with_call.add(queue)
        self._node.set_vring_call(queue, or_unbind(eventfd))


def or_unbind(eventfd: int | None) -> int:
    """The descriptor, or what stands for none."""
    return UNBIND if eventfd is None else eventfd
