"""The character device of a vhost-vdpa device: one small method per ioctl.

Whoever opens the node has the device alone and resets it; closing resets it again. Most ioctls are
for the process whose address space SET_OWNER bound, on any of its threads. They may sleep in the
driver, so none of this belongs on the event loop's thread.

Every failure leaves through `_refused`, the one place that knows what an errno means here.

Source: Linux 6.12, include/uapi/linux/vhost.h and drivers/vhost/vdpa.c.
"""

import errno
import fcntl
import math
import os
import resource
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path
from typing import Self

from vdpad.errors import VdpadError
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.split_ring import Region

# include/uapi/linux/vhost.h; the same encoding on x86-64 and arm64.
_GET_FEATURES = 0x8008AF00
_SET_FEATURES = 0x4008AF00
_SET_OWNER = 0x0000AF01
_SET_VRING_NUM = 0x4008AF10
_SET_VRING_ADDR = 0x4028AF11
_SET_VRING_BASE = 0x4008AF12
_SET_VRING_KICK = 0x4008AF20
_SET_VRING_CALL = 0x4008AF21
_SET_BACKEND_FEATURES = 0x4008AF25
_GET_BACKEND_FEATURES = 0x8008AF26
_GET_DEVICE_ID = 0x8004AF70
_GET_STATUS = 0x8001AF71
_SET_STATUS = 0x4001AF72
_GET_CONFIG = 0x8008AF73
_SET_VRING_ENABLE = 0x4008AF75
_GET_VRING_NUM = 0x8002AF76
_GET_IOVA_RANGE = 0x8010AF78
_GET_CONFIG_SIZE = 0x8004AF79
_GET_AS_NUM = 0x8004AF7A
_GET_VRING_GROUP = 0xC008AF7B
_SET_GROUP_ASID = 0x4008AF7C
_GET_VQS_COUNT = 0x8004AF80
_GET_VRING_SIZE = 0xC008AF82

_U8 = struct.Struct("=B")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_INDEXED = struct.Struct("=II")
_INDEXED_FD = struct.Struct("=Ii")
_RANGE = struct.Struct("=QQ")
_VRING_ADDR = struct.Struct("=IIQQQQ")
_CONFIG_HEADER = struct.Struct("=II")

# struct vhost_msg_v2: type, asid, then struct vhost_iotlb_msg, in 72 bytes.
_IOTLB_MSG = struct.Struct("=IIQQQBB38x")
_IOTLB_MSG_V2 = 2
_ACCESS_READ_WRITE = 3
_IOTLB_UPDATE = 2

# What a kernel that is older than an ioctl answers, or one whose driver lacks it.
_UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP)


class BackendFeature(IntFlag):
    """What the kernel's half can do (include/uapi/linux/vhost_types.h)."""

    IOTLB_MSG_V2 = 1 << 1
    IOTLB_ASID = 1 << 3


class VhostVdpaError(VdpadError):
    """The kernel or the device refused a step."""


class NoSuchNode(VhostVdpaError):
    """There is no such device node, or its device is gone."""


class NodeBusy(VhostVdpaError):
    """Another process has the device."""


class NotPermitted(VhostVdpaError):
    """This process may not."""


class MemoryLimit(VhostVdpaError):
    """RLIMIT_MEMLOCK keeps the memory from being mapped for the device."""


class _Unsupported(VhostVdpaError):
    """The kernel or the driver has no such ioctl."""


_KINDS: Mapping[int, tuple[type[VhostVdpaError], str]] = {
    errno.EBUSY: (NodeBusy, "another process has the device; only one can"),
    errno.ENOENT: (
        NoSuchNode,
        "bind the vdpa device to the driver vhost_vdpa; where it is, let this service see the node "
        "(its drop-in vhost-vdpa.conf)",
    ),
    errno.ENODEV: (NoSuchNode, "the device is being removed"),
    errno.ENXIO: (NoSuchNode, "the device is being removed"),
    errno.EACCES: (NotPermitted, "give this user the node (a udev rule, or DeviceAllow=)"),
    errno.EPERM: (NotPermitted, "give this service the node (DeviceAllow=char-vhost-vdpa rw)"),
    **dict.fromkeys(_UNSUPPORTED, (_Unsupported, "the kernel or the driver does not have it")),
}


class Node:
    """An open node. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        """Opens it, which resets the device.

        Raises:
            NoSuchNode, NodeBusy, NotPermitted, VhostVdpaError: it cannot be opened.
        """
        self._path = path
        with self._refused("open"):
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def adopted(cls, path: Path, fd: int) -> Self:
        """A node that an earlier process opened; the device is left as it is.

        Args:
            path: where it was opened.
            fd: closed by `close`.
        """
        node = cls.__new__(cls)
        node._path = path
        node._fd = fd
        return node

    def close(self) -> None:
        """Gives the device back; the kernel resets it, once nobody has a copy of the descriptor."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor; it stays the node's."""
        return self._fd

    # --- the device ---

    def own(self) -> None:
        """Binds the device to this process's address space."""
        self._ioctl(_SET_OWNER, b"", "SET_OWNER")

    def device_id(self) -> int:
        """The virtio device ID; 1 is a network card."""
        return self._get(_GET_DEVICE_ID, _U32, "GET_DEVICE_ID")

    def backend_features(self) -> BackendFeature:
        """What the kernel and the driver offer of what is known here."""
        offered = self._get(_GET_BACKEND_FEATURES, _U64, "GET_BACKEND_FEATURES")
        return BackendFeature(offered & sum(BackendFeature))

    def accept_backend_features(self, features: BackendFeature) -> None:
        """Takes these of what is offered."""
        self._set(_SET_BACKEND_FEATURES, _U64.pack(features), "SET_BACKEND_FEATURES")

    def status(self) -> int:
        """The device status byte (virtio 1.4, 2.1)."""
        return self._get(_GET_STATUS, _U8, "GET_STATUS")

    def set_status(self, status: int) -> None:
        """Writes the status byte; 0 resets. Whether the device agrees, only `status` tells."""
        self._set(_SET_STATUS, _U8.pack(status), f"SET_STATUS {status:#x}")

    def features(self) -> FeatureSet:
        """What the device offers."""
        return bits_of(self._get(_GET_FEATURES, _U64, "GET_FEATURES"))

    def accept_features(self, features: FeatureSet) -> None:
        """Negotiates these; before that, reading the config space would imply none."""
        self._set(_SET_FEATURES, _U64.pack(mask_of(features)), "SET_FEATURES")

    def config(self) -> bytes:
        """The whole device config space."""
        size = self._get(_GET_CONFIG_SIZE, _U32, "GET_CONFIG_SIZE")
        buffer = bytearray(_CONFIG_HEADER.pack(0, size) + bytes(size))
        self._ioctl(_GET_CONFIG, buffer, "GET_CONFIG")
        return bytes(buffer[_CONFIG_HEADER.size :])

    # --- address spaces and memory ---

    def iova_range(self) -> Region:
        """The device addresses that memory may be mapped at."""
        buffer = bytearray(_RANGE.size)
        self._ioctl(_GET_IOVA_RANGE, buffer, "GET_IOVA_RANGE")
        first, last = _RANGE.unpack(buffer)
        return Region(first, last - first + 1)

    def address_spaces(self) -> int:
        """How many there are; 1 where the kernel does not say."""
        return self._get(_GET_AS_NUM, _U32, "GET_AS_NUM", unsupported=1)

    def group_of(self, queue: int) -> int:
        """The group of queues that share an address space."""
        return self._indexed(_GET_VRING_GROUP, queue, "GET_VRING_GROUP")

    def set_address_space(self, group: int, asid: int) -> None:
        """Gives a group an address space."""
        self._set(_SET_GROUP_ASID, _INDEXED.pack(group, asid), f"SET_GROUP_ASID {group} {asid}")

    def map(self, asid: int, region: Region, address: int) -> None:
        """Lets the device read and write memory of this process.

        Args:
            asid: heeded where IOTLB_ASID was accepted.
            region: where the device sees it; whole pages.
            address: of the memory here; it must be mapped MAP_SHARED from a file.

        Raises:
            MemoryLimit: RLIMIT_MEMLOCK is too small.
        """
        message = _IOTLB_MSG.pack(
            *(_IOTLB_MSG_V2, asid, region.iova, region.size, address),
            *(_ACCESS_READ_WRITE, _IOTLB_UPDATE),
        )
        pinned, most = _pinned_bytes(), _most_pinned_bytes()
        try:
            with self._refused(f"mapping {region.size} bytes"):
                os.write(self._fd, message)
        except VhostVdpaError as error:
            # EFAULT stands for every reason. This one can be told, by counting as the kernel does.
            if pinned + region.size <= most:
                raise
            raise MemoryLimit(
                f"{self._path}: expected to lock {region.size} bytes beside {pinned}, "
                f"got a limit of {most} (RLIMIT_MEMLOCK); raise it (systemd: LimitMEMLOCK=)"
            ) from error

    # --- queues ---

    def queues(self) -> int | None:
        """How many virtqueues there are; None where the kernel does not say."""
        return self._get(_GET_VQS_COUNT, _U32, "GET_VQS_COUNT", unsupported=0) or None

    def largest_ring(self, queue: int) -> int:
        """How many entries the queue's ring may have. Asked before `set_ring_size`."""
        try:
            return self._indexed(_GET_VRING_SIZE, queue, "GET_VRING_SIZE")
        except _Unsupported:
            return self._get(_GET_VRING_NUM, _U16, "GET_VRING_NUM")

    def set_ring_size(self, queue: int, size: int) -> None:
        """How many entries the ring has: a power of two."""
        self._set(_SET_VRING_NUM, _INDEXED.pack(queue, size), f"SET_VRING_NUM {queue} {size}")

    def set_ring_base(self, queue: int, index: int) -> None:
        """Where the available index begins. Not after DRIVER_OK."""
        self._set(_SET_VRING_BASE, _INDEXED.pack(queue, index), f"SET_VRING_BASE {queue}")

    def set_ring_addresses(
        self, queue: int, *, descriptors: int, available: int, used: int
    ) -> None:
        """Where the ring lies, in device addresses. Not after DRIVER_OK."""
        addresses = _VRING_ADDR.pack(queue, 0, descriptors, used, available, 0)
        self._set(_SET_VRING_ADDR, addresses, f"SET_VRING_ADDR {queue}")

    def set_kick(self, queue: int, eventfd: int) -> None:
        """The eventfd by which the device hears of available chains."""
        self._set(_SET_VRING_KICK, _INDEXED_FD.pack(queue, eventfd), f"SET_VRING_KICK {queue}")

    def set_call(self, queue: int, eventfd: int) -> None:
        """The eventfd by which the device interrupts."""
        self._set(_SET_VRING_CALL, _INDEXED_FD.pack(queue, eventfd), f"SET_VRING_CALL {queue}")

    def enable(self, queue: int) -> None:
        """Lets the device work on the queue."""
        self._set(_SET_VRING_ENABLE, _INDEXED.pack(queue, 1), f"SET_VRING_ENABLE {queue}")

    # --- ioctl and its failures ---

    def _get(
        self, request: int, layout: struct.Struct, name: str, *, unsupported: int | None = None
    ) -> int:
        buffer = bytearray(layout.size)
        try:
            self._ioctl(request, buffer, name)
        except _Unsupported:
            if unsupported is None:
                raise
            return unsupported
        (value,) = layout.unpack(buffer)
        return int(value)

    def _indexed(self, request: int, index: int, name: str) -> int:
        buffer = bytearray(_INDEXED.pack(index, 0))
        self._ioctl(request, buffer, f"{name} {index}")
        return int(_INDEXED.unpack(buffer)[1])

    def _set(self, request: int, argument: bytes, name: str) -> None:
        self._ioctl(request, bytearray(argument), name)

    def _ioctl(self, request: int, argument: bytes | bytearray, name: str) -> None:
        with self._refused(name):
            fcntl.ioctl(self._fd, request, argument)

    @contextmanager
    def _refused(self, step: str) -> Iterator[None]:
        """Turns a failure of this step into an error that says what to do."""
        try:
            yield
        except OSError as error:
            code = error.errno or 0
            kind, advice = _KINDS.get(code, (VhostVdpaError, "the kernel's log may say why"))
            name = errno.errorcode.get(code, str(code))
            raise kind(f"{self._path}: {step}: {error.strerror} ({name}); {advice}") from error


def _pinned_bytes() -> int:
    """What of this process is locked for devices, as the kernel counts against the limit."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPin:"):
            return int(line.split()[1]) * 1024
    return 0


def _most_pinned_bytes() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return math.inf if soft == resource.RLIM_INFINITY else soft
