"""Stories without packets, most of them for both devices."""

from __future__ import annotations

import os
import select
import time
from dataclasses import replace
from pathlib import Path

from tests.support.waiting import GUARD
from vdpad.queues.vhost_vdpa.device import to_negotiate
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import FEATURES, Feature
from vdpad.virtio.rings import Region

from .guest import HIGH, LOW, MAC, PACKETS, PAGE, RECEIVE, TRANSMIT, Guest
from .telling import A_WHILE, Json, pause, refusal
from .vmm import Vmm

STRAY = frozenset({Feature.RSS})


def look(path: Path, folder: Path) -> Json:
    """Asked at once, then negotiated, reset, and negotiated with less."""
    with OpenDevice(Node(path)) as device:
        seen: Json = {
            "offered": FEATURES.names(device.offered),
            "backend": [each.name for each in BackendFeature if each in device.backend_features],
            "address_spaces": device.address_spaces,
            "mac": pull_config(device.config()).mac.hex(":"),
            "stray": refusal(lambda: device.negotiate(device.offered | STRAY)),
        }
        everything = to_negotiate(device.offered, device.offered)
        device.negotiate(everything)
        seen["control_queue"] = device.control_queue
        seen["largest"] = device.vrings.largest(device.control_queue)
        seen["control_space"] = device.isolate_control_queue()
        pause(folder, "everything", features=FEATURES.names(everything))
        device.reset()
        fewer = to_negotiate(device.offered, frozenset({Feature.MAC}))
        device.negotiate(fewer)
        pause(folder, "fewer", features=FEATURES.names(fewer))
        device.reset()
        pause(folder, "reset")
    return seen


def pinned(path: Path, folder: Path) -> Json:
    """Regions mapped and unmapped, by the kernel's own count of pages locked for devices."""
    guest = Guest()
    with OpenDevice(Node(path)) as device:
        counts = [_pinned_pages()]

        def attempt(step: str, asid: int, region: Region) -> str:
            arguments = (guest.low.address,) if step == "map" else ()
            return refusal(lambda: getattr(device.iotlb, step)(asid, region, *arguments))

        for each in (guest.low, guest.high):
            device.iotlb.map(0, each.region, each.address)
            counts.append(_pinned_pages())
        refused = [
            attempt("map", 0, Region(LOW.iova, PAGE)),
            attempt("map", device.address_spaces, LOW),
            attempt("unmap", 0, Region(LOW.iova, PAGE)),
            attempt("unmap", 0, Region(LOW.end, PAGE)),
        ]
        device.iotlb.unmap(0, LOW)
        counts.append(_pinned_pages())
        device.reset()
        counts.append(_pinned_pages())
        device.iotlb.map(0, LOW, guest.low.address)
        device.iotlb.unmap(0, HIGH)
        counts.append(_pinned_pages())
    counts.append(_pinned_pages())
    return {"pages": counts, "refused": refused}


def _pinned_pages() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmPin:"))
    return int(line.split()[1]) * 1024 // PAGE


def replayed(path: Path, folder: Path) -> Json:
    """A state between the CVQ's enabling and the data queues'; twice on one open node."""
    with OpenDevice(Node(path)) as device:
        vmm = Vmm(device)
        guest = vmm.guest
        vmm.bring_up()
        pause(folder, "started")
        outcome = vmm.replay(*(VlanAdd(vid) for vid in range(1, 301)))
        guest.transmit.offer(Region(PACKETS.iova, 64), writable=False)
        guest.transmit.ring_doorbell()
        pause(folder, "replayed", outcome=outcome, used=guest.used_after_a_while())
        vmm.enable_data_queues()
        used = vmm.used_until(0, 1)
        pause(folder, "enabled", used=used, status=device.status())
        device.reset()
        pause(folder, "reset")
        vmm.bring_up()
        pause(folder, "again", outcome=vmm.replay(VlanAdd(7)))
        assert vmm.shadow is not None
        return {
            "control_space": vmm.shadow.space,
            "behind the shadow": device.iova_range.end - vmm.shadow.geometry.memory.end,
        }


def refusals(path: Path, folder: Path) -> Json:
    """What vp_vdpa does not have."""
    seen: Json = {}
    with OpenDevice(Node(path)) as device:
        vmm = Vmm(device)
        receive = vmm.guest.receive
        seen["too early"] = [
            refusal(device.suspend),
            refusal(device.start),
            refusal(lambda: device.vrings.set(RECEIVE, receive.begin_at(0))),
        ]
        device.negotiate(vmm.features)
        seen["no such queue"] = refusal(lambda: device.vrings.set(9, receive.begin_at(0)))
        seen["begin at 5"] = refusal(lambda: device.vrings.set(RECEIVE, receive.begin_at(5)))
        seen["base"] = refusal(lambda: device.vrings.base(RECEIVE))
        device.reset()
        vmm.bring_up()
        vmm.enable_data_queues()
        seen["suspend"] = [refusal(device.suspend), device.phase.value]
        seen["disable"] = refusal(lambda: device.vrings.disable(RECEIVE))
        device.reset()
        vmm.bring_up()
        seen["after a reset"] = device.status()
    return seen


def silence(path: Path, folder: Path) -> Json:
    """What the kernel says to steps that OpenDevice refuses as wrong or out of order."""
    node, memory = Node(path), Guest().high
    node.set_owner()
    node.set_backend_features(node.get_backend_features())
    offered = node.get_features()
    node.iotlb_update(0, HIGH, memory.address)
    behind = Region(HIGH.end, PAGE)
    seen: Json = {
        "suspend": refusal(node.suspend),
        "resume": refusal(node.resume),
        "invalidate what is not mapped": refusal(lambda: node.iotlb_invalidate(0, behind)),
    }
    for status in (1, 3):
        node.set_status(status)
    seen["features not offered"] = refusal(lambda: node.set_features(offered | STRAY))
    node.set_status(11)
    seen["enable without a ring"] = refusal(lambda: node.set_vring_enable(0, enabled=True))
    node.set_status(15)
    seen["size of a ring that runs"] = refusal(lambda: node.set_vring_num(0, 8))
    node.close()
    return seen


def late_call(path: Path, folder: Path) -> Json:
    """A call eventfd that a queue is given before DRIVER_OK, and one that comes after it."""
    node = Node(path)
    seen: Json = {}
    with OpenDevice(node) as device:
        vmm = Vmm(device)
        queue = vmm.guest.transmit
        for when in ("before", "after"):
            device.negotiate(vmm.features)
            vring = queue.begin_at(0)
            early = when == "before"
            device.vrings.set(TRANSMIT, vring if early else replace(vring, call=None))
            device.vrings.enable(TRANSMIT)
            device.start()
            refused = refusal(lambda: device.vrings.set_call(TRANSMIT, queue.call))
            node.set_vring_call(TRANSMIT, queue.call)
            queue.offer(Region(PACKETS.iova, 64), writable=False)
            queue.ring_doorbell()
            used = vmm.used_until(0, 1)
            time.sleep(A_WHILE)
            seen[when] = [refused, used, queue.was_called()]
            device.reset()
    return seen


def config(path: Path, folder: Path) -> Json:
    """Written and read."""
    with OpenDevice(Node(path)) as device:
        device.negotiate(to_negotiate(device.offered, device.offered))
        before = pull_config(device.config()).mac
        device.set_config(0, MAC)
        after = pull_config(device.config()).mac
        device.set_config(0, before)
        return {
            "before": before.hex(":"),
            "after": after.hex(":"),
            "beyond": refusal(lambda: device.set_config(len(device.config()), b"\0")),
            "no eventfd": refusal(lambda: device.set_config_call(device.fileno())),
            "call": refusal(lambda: device.set_config_call(os.eventfd(0))),
        }


def config_call(path: Path, folder: Path) -> Json:
    """An interrupt by the device's config space, while it runs."""
    call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with OpenDevice(Node(path)) as device:
        device.negotiate(to_negotiate(device.offered, device.offered))
        device.set_config_call(call)
        device.start()
        before = pull_config(device.config()).status
        pause(folder, "running")
        called = bool(select.select([call], [], [], GUARD)[0]) and os.eventfd_read(call) > 0
        after = pull_config(device.config()).status
        device.set_config_call(None)
        pause(folder, "without")
        time.sleep(A_WHILE)
        silent = not select.select([call], [], [], 0)[0]
        return {"status": [before, after], "called": called, "silent": silent}
