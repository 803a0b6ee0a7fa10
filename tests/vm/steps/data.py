"""Stories with packets, on vdpa_sim_net: it gives back what is transmitted to its own address.

So a packet that comes back says that the replayed MAC_ADDR_SET was done, that rings and regions are
where the device was told, and that it began where it was told.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.commands import MacAddrSet
from vdpad.virtio.rings import Region

from .guest import HIGH, MAC, PAGE, RECEIVE, SPARE
from .telling import Json, until
from .vmm import Vmm


def packets(path: Path, folder: Path) -> Json:
    """A whole life: a replay, data queues, a pause, a second start where the first one ended."""
    seen: Json = {}
    with OpenDevice(Node(path)) as device:
        vmm = Vmm(device)
        guest = vmm.guest
        vmm.bring_up((5, 5))
        guest.send("one")
        seen["before the replay"] = guest.used_after_a_while()
        seen["acked"] = vmm.replay(MacAddrSet(MAC))
        seen["before enabling"] = guest.used_after_a_while()
        vmm.enable_data_queues()
        seen["enabled"] = [vmm.used_until(6, 6), guest.received(5)]
        seen["called"] = [queue.was_called() for queue in guest.queues]

        device.suspend()
        guest.send("two")
        seen["suspended"] = [guest.used_after_a_while(), vmm.bases()]
        device.resume()
        seen["resumed"] = [vmm.used_until(7, 7), guest.received(6)]

        device.suspend()
        bases = vmm.bases()
        device.reset()
        vmm.bring_up(bases)
        seen["acked again"] = vmm.replay(MacAddrSet(MAC))
        vmm.enable_data_queues()
        guest.send("three")
        seen["started again"] = [bases, vmm.used_until(8, 8), guest.received(7)]
    return seen


def older_kernel(path: Path, folder: Path) -> Json:
    """Two starts where the kernel does not keep what was mapped, as before 6.7."""

    class OlderNode(Node):
        def get_backend_features(self) -> BackendFeature:
            return super().get_backend_features() & ~BackendFeature.IOTLB_PERSIST

    with OpenDevice(OlderNode(path)) as device:
        vmm = Vmm(device)
        vmm.bring_up()
        device.reset()
        vmm.bring_up()
        acked = vmm.replay(MacAddrSet(MAC))
        vmm.enable_data_queues()
        vmm.guest.send("one")
        return {
            "acked": acked,
            "used": vmm.used_until(1, 1),
            "received": vmm.guest.received(0),
        }


def moved_ring(path: Path, folder: Path) -> Json:
    """While the device is suspended its receive queue is given another used ring."""
    with OpenDevice(Node(path)) as device:
        vmm = Vmm(device)
        guest = vmm.guest
        vmm.bring_up()
        vmm.replay(MacAddrSet(MAC))
        vmm.enable_data_queues()
        guest.send("one")
        vmm.used_until(1, 1)

        device.suspend()
        queue, base = guest.receive, device.vrings.base(RECEIVE)
        moved = replace(queue.geometry.addresses, used=SPARE.iova)
        device.vrings.set(RECEIVE, Vring(moved, base, queue.kick, queue.call))
        device.vrings.disable(RECEIVE)
        device.vrings.enable(RECEIVE)
        device.resume()
        guest.send("two")
        index = guest.low.at(SPARE)[2:4]
        until(lambda: index[0] == 2)
        return {"old": guest.used(), "new": index[0], "received": guest.received(1)}


def unmapped(path: Path, folder: Path) -> Json:
    """Regions come and go under a device that works."""
    unused = Region(1 << 33, PAGE)
    seen: Json = {}
    with OpenDevice(Node(path)) as device:
        vmm = Vmm(device)
        guest = vmm.guest
        device.iotlb.map(0, unused, guest.high.address)
        vmm.bring_up()
        vmm.replay(MacAddrSet(MAC))
        vmm.enable_data_queues()
        device.iotlb.unmap(0, unused)
        guest.send("one")
        seen["another"] = [vmm.used_until(1, 1), guest.received(0)]
        device.iotlb.unmap(0, HIGH)
        guest.send("two")
        seen["its own"] = guest.used_after_a_while()[RECEIVE]
        device.iotlb.map(0, HIGH, guest.high.address)
        guest.send("three")
        until(lambda: guest.used()[RECEIVE] == 2)
        seen["mapped again"] = [guest.used()[RECEIVE], guest.received(2)]
    return seen
