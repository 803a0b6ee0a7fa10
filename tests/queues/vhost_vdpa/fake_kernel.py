"""A kernel's half of vhost-vdpa that answers ioctls, and does what no device at hand will.

It is as lenient as Linux: what comes at the wrong time it takes, and does nothing.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.errors import refused
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.bits import mask_of
from vdpad.virtio.config import NetConfig, push_config
from vdpad.virtio.features import Feature, FeatureSet

PATH = Path("/dev/vhost-vdpa-fake")
NAMES = {
    number: name
    for name, number in vars(uapi).items()
    if name.isupper() and isinstance(number, int)
}
EVERYTHING = BackendFeature(sum(BackendFeature))
OFFERED = frozenset({Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.CTRL_VQ, Feature.MQ})


@dataclass
class FakeKernel:
    """What it offers and refuses, and all that it was told."""

    device_id: int = 1
    backend_features: BackendFeature = EVERYTHING
    config: bytes = push_config(NetConfig(max_virtqueue_pairs=2))
    queues: int = 5
    address_spaces: int = 2
    groups: dict[int, int] = field(default_factory=lambda: {4: 1})
    largest: int = 64
    offered: FeatureSet = OFFERED
    demanded: FeatureSet = frozenset()
    """Features without which it does not come up."""
    unsupported: frozenset[str] = frozenset()
    """ioctls that it does not have."""
    refused_bits: int = 0
    """Status bits that the device does not take."""
    bits_after_disable: int = 0
    """Status bits that come once a queue is disabled."""
    resets_after: int = 0
    """How often the status must be read before a reset has been."""
    maps: bool = True
    """Whether it takes IOTLB messages."""

    said: list[tuple[str, bytes]] = field(default_factory=list)
    """Each ioctl that sets something, and its argument."""
    messages: list[bytes] = field(default_factory=list)
    """Each IOTLB message."""
    status: int = 0
    closed: int = 0

    def ioctl(self, request: int, argument: bytes | bytearray) -> None:
        """Answers one."""
        name = NAMES[request]
        if name in self.unsupported:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if name.startswith("GET_"):
            assert isinstance(argument, bytearray)
            self._get(name, argument)
            return
        self.said.append((name, bytes(argument)))
        if name == "SET_FEATURES" and mask_of(self.demanded) & ~uapi.U64.unpack(argument)[0]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if name == "SET_STATUS":
            self._set_status(argument[0])
        elif name == "SET_VRING_ENABLE" and uapi.VRING_STATE.unpack(argument)[1] == 0:
            self.status |= self.bits_after_disable

    def write(self, message: bytes) -> None:
        """Takes an IOTLB message."""
        if not self.maps:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        self.messages.append(message)

    def steps(self) -> list[str]:
        """The names of what it was told, in order."""
        return [name for name, _ in self.said]

    def told(self, name: str) -> list[bytes]:
        """The arguments of one kind of ioctl."""
        return [argument for each, argument in self.said if each == name]

    def _set_status(self, status: int) -> None:
        if status or not self.resets_after:
            self.status = status & ~self.refused_bits

    def _get_status(self) -> int:
        if self.resets_after:
            self.resets_after -= 1
            if not self.resets_after:
                self.status = 0
        return self.status

    def _get(self, name: str, argument: bytearray) -> None:
        if name == "GET_CONFIG":
            argument[uapi.CONFIG_HEADER.size :] = self.config
        elif name in ("GET_VRING_GROUP", "GET_VRING_SIZE", "GET_VRING_BASE"):
            queue, _ = uapi.VRING_STATE.unpack(argument)
            answer = {"GET_VRING_GROUP": self.groups.get(queue, 0), "GET_VRING_SIZE": self.largest}
            argument[:] = uapi.VRING_STATE.pack(queue, answer.get(name, 7))
        elif name == "GET_IOVA_RANGE":
            argument[:] = uapi.IOVA_RANGE.pack(0x1000, (1 << 40) - 1)
        else:
            argument[:] = self._number(name).to_bytes(len(argument), "little")

    def _number(self, name: str) -> int:
        if name == "GET_STATUS":
            return self._get_status()
        return {
            "GET_DEVICE_ID": self.device_id,
            "GET_BACKEND_FEATURES": int(self.backend_features),
            "GET_FEATURES": mask_of(self.offered),
            "GET_CONFIG_SIZE": len(self.config),
            "GET_AS_NUM": self.address_spaces,
            "GET_VQS_COUNT": self.queues,
            "GET_VRING_NUM": 256,
        }[name]


class FakeNode(Node):
    """A node whose ioctls and messages go to such a kernel."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.path = PATH
        self.kernel = kernel

    def fileno(self) -> int:
        """None that anybody could use."""
        return -1

    def close(self) -> None:
        self.kernel.closed += 1

    def _ioctl(self, request: int, argument: bytes | bytearray, name: str) -> None:
        with refused(self.path, name):
            self.kernel.ioctl(request, argument)

    def _write(self, message: bytes, step: str) -> None:
        with refused(self.path, step):
            self.kernel.write(message)
