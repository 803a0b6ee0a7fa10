"""The character device of a vhost-vdpa device: one small method per ioctl, named as the kernel's.

Whoever opens the node has the device alone and resets it; closing resets it again. Most ioctls are
for the process whose address space SET_OWNER bound, on any of its threads. They may sleep in the
driver, so none of this belongs on the event loop's thread. A method says no more than its ioctl
does: which of them makes sense when is open_device.py's.

Every method raises VhostVdpaError, by the subclasses that errors.py has for an errno.

Source: Linux 6.12, include/uapi/linux/vhost.h and drivers/vhost/vdpa.c.
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Self

from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.errors import refused
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.rings import Region, RingAddresses


class Node:
    """An open node. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        """Opens it, which resets the device.

        Raises:
            NoSuchNode, NodeBusy, NotPermitted, VhostVdpaError: it cannot be opened.
        """
        self.path = path
        with refused(path, "open"):
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def adopted(cls, path: Path, fd: int) -> Self:
        """A node that an earlier process opened; the device is left as it is.

        Args:
            path: where it was opened.
            fd: closed by `close`.
        """
        node = cls.__new__(cls)
        node.path = path
        node._fd = fd
        return node

    def close(self) -> None:
        """Gives the device back; the kernel resets it, once nobody has a copy of the descriptor."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor; it stays the node's."""
        return self._fd

    # --- the device ---

    def set_owner(self) -> None:
        """Binds the device to this process's address space."""
        self._ioctl(uapi.SET_OWNER, b"", "SET_OWNER")

    def get_device_id(self) -> int:
        """The virtio device ID; 1 is a network card."""
        return self._get(uapi.GET_DEVICE_ID, uapi.U32, "GET_DEVICE_ID")

    def get_backend_features(self) -> BackendFeature:
        """What the kernel and the driver offer of what is known here."""
        offered = self._get(uapi.GET_BACKEND_FEATURES, uapi.U64, "GET_BACKEND_FEATURES")
        return BackendFeature(offered & sum(BackendFeature))

    def set_backend_features(self, features: BackendFeature) -> None:
        """Takes these of what is offered."""
        self._set(uapi.SET_BACKEND_FEATURES, uapi.U64.pack(features), "SET_BACKEND_FEATURES")

    def get_status(self) -> int:
        """The device status byte (virtio 1.4, 2.1)."""
        return self._get(uapi.GET_STATUS, uapi.U8, "GET_STATUS")

    def set_status(self, status: int) -> None:
        """Writes the status byte; 0 resets. Whether the device agrees, only `get_status` tells."""
        self._set(uapi.SET_STATUS, uapi.U8.pack(status), f"SET_STATUS {status:#x}")

    def get_features(self) -> FeatureSet:
        """What the device offers, whatever was negotiated."""
        return bits_of(self._get(uapi.GET_FEATURES, uapi.U64, "GET_FEATURES"))

    def set_features(self, features: FeatureSet) -> None:
        """Negotiates these. A driver may mask out what its device does not offer."""
        self._set(uapi.SET_FEATURES, uapi.U64.pack(mask_of(features)), "SET_FEATURES")

    def suspend(self) -> None:
        """Stops the device's work on all queues. Before DRIVER_OK the kernel does nothing."""
        self._ioctl(uapi.SUSPEND, b"", "SUSPEND")

    def resume(self) -> None:
        """Lets a suspended device go on. Before DRIVER_OK the kernel does nothing."""
        self._ioctl(uapi.RESUME, b"", "RESUME")

    # --- the config space ---

    def get_config(self) -> bytes:
        """The whole device config space. Before `set_features` the kernel negotiates none."""
        size = self._get(uapi.GET_CONFIG_SIZE, uapi.U32, "GET_CONFIG_SIZE")
        buffer = bytearray(uapi.CONFIG_HEADER.pack(0, size) + bytes(size))
        self._ioctl(uapi.GET_CONFIG, buffer, "GET_CONFIG")
        return bytes(buffer[uapi.CONFIG_HEADER.size :])

    def set_config(self, offset: int, data: bytes) -> None:
        """Writes into the config space. Whether the device agrees, only `get_config` tells."""
        argument = uapi.CONFIG_HEADER.pack(offset, len(data)) + data
        self._set(uapi.SET_CONFIG, argument, f"SET_CONFIG {offset} {len(data)}")

    def set_config_call(self, eventfd: int) -> None:
        """The eventfd by which the device tells that its config space or status has changed."""
        self._set(uapi.SET_CONFIG_CALL, uapi.FD.pack(eventfd), "SET_CONFIG_CALL")

    # --- address spaces and memory ---

    def get_iova_range(self) -> Region:
        """The device addresses that memory may be mapped at."""
        buffer = bytearray(uapi.IOVA_RANGE.size)
        self._ioctl(uapi.GET_IOVA_RANGE, buffer, "GET_IOVA_RANGE")
        first, last = uapi.IOVA_RANGE.unpack(buffer)
        return Region(first, last - first + 1)

    def get_as_num(self) -> int:
        """How many address spaces there are."""
        return self._get(uapi.GET_AS_NUM, uapi.U32, "GET_AS_NUM")

    def get_vring_group(self, queue: int) -> int:
        """The group of queues that share an address space."""
        return self._get_vring(uapi.GET_VRING_GROUP, queue, "GET_VRING_GROUP")

    def set_group_asid(self, group: int, asid: int) -> None:
        """Gives a group an address space."""
        self._set_vring(uapi.SET_GROUP_ASID, group, asid, "SET_GROUP_ASID")

    def iotlb_update(self, asid: int, region: Region, address: int) -> None:
        """Lets the device read and write memory of this process; EFAULT stands for every reason."""
        self._write(uapi.push_iotlb_update(asid, region, address), f"mapping {region.size} bytes")

    def iotlb_invalidate(self, asid: int, region: Region) -> None:
        """Takes from the device every mapping that the region touches."""
        self._write(uapi.push_iotlb_invalidate(asid, region), f"unmapping {region.size} bytes")

    # --- queues ---

    def get_vqs_count(self) -> int:
        """How many virtqueues there are."""
        return self._get(uapi.GET_VQS_COUNT, uapi.U32, "GET_VQS_COUNT")

    def get_vring_num(self) -> int:
        """How many entries the largest ring of any queue may have."""
        return self._get(uapi.GET_VRING_NUM, uapi.U16, "GET_VRING_NUM")

    def get_vring_size(self, queue: int) -> int:
        """How many entries this queue's ring may have; once it has a size, that size."""
        return self._get_vring(uapi.GET_VRING_SIZE, queue, "GET_VRING_SIZE")

    def set_vring_num(self, queue: int, size: int) -> None:
        """How many entries the ring has: a power of two."""
        self._set_vring(uapi.SET_VRING_NUM, queue, size, "SET_VRING_NUM")

    def get_vring_base(self, queue: int) -> int:
        """Where the device goes on (`Vring.base`)."""
        return self._get_vring(uapi.GET_VRING_BASE, queue, "GET_VRING_BASE")

    def set_vring_base(self, queue: int, base: int) -> None:
        """Where the device begins (`Vring.base`). After DRIVER_OK only while suspended."""
        self._set_vring(uapi.SET_VRING_BASE, queue, base, "SET_VRING_BASE")

    def set_vring_addr(self, queue: int, ring: RingAddresses) -> None:
        """Where the ring lies. After DRIVER_OK only while suspended."""
        descriptors, driver, device = (part.iova for part in ring.parts().values())
        addresses = uapi.VRING_ADDR.pack(queue, 0, descriptors, device, driver, 0)
        self._set(uapi.SET_VRING_ADDR, addresses, f"SET_VRING_ADDR {queue}")

    def set_vring_kick(self, queue: int, eventfd: int) -> None:
        """The eventfd by which the device hears of available chains."""
        self._set_vring_file(uapi.SET_VRING_KICK, queue, eventfd, "SET_VRING_KICK")

    def set_vring_call(self, queue: int, eventfd: int) -> None:
        """The eventfd by which the device interrupts."""
        self._set_vring_file(uapi.SET_VRING_CALL, queue, eventfd, "SET_VRING_CALL")

    def set_vring_enable(self, queue: int, *, enabled: bool) -> None:
        """Lets the device work on the queue, or not."""
        self._set_vring(uapi.SET_VRING_ENABLE, queue, int(enabled), "SET_VRING_ENABLE")

    # --- ioctl and write ---

    def _get(self, request: int, layout: struct.Struct, name: str) -> int:
        buffer = bytearray(layout.size)
        self._ioctl(request, buffer, name)
        (value,) = layout.unpack(buffer)
        return int(value)

    def _set(self, request: int, argument: bytes, name: str) -> None:
        self._ioctl(request, bytearray(argument), name)

    def _get_vring(self, request: int, queue: int, name: str) -> int:
        buffer = bytearray(uapi.VRING_STATE.pack(queue, 0))
        self._ioctl(request, buffer, f"{name} {queue}")
        return int(uapi.VRING_STATE.unpack(buffer)[1])

    def _set_vring(self, request: int, index: int, number: int, name: str) -> None:
        argument = uapi.VRING_STATE.pack(index, number)
        self._set(request, argument, f"{name} {index} {number}")

    def _set_vring_file(self, request: int, queue: int, fd: int, name: str) -> None:
        self._set(request, uapi.VRING_FILE.pack(queue, fd), f"{name} {queue}")

    def _ioctl(self, request: int, argument: bytes | bytearray, name: str) -> None:
        with refused(self.path, name):
            fcntl.ioctl(self._fd, request, argument)

    def _write(self, message: bytes, step: str) -> None:
        with refused(self.path, step):
            os.write(self._fd, message)
