"""A vhost-vdpa device that an earlier process of ours brought up, by copies of its descriptors.

The kernel resets a device when the last copy of its node is closed, so with a copy somewhere it
stays as it was when its owner died: its status, its memory (which the kernel has pinned), its ring
and both eventfds. But it still belongs to the address space that is gone, and nobody becomes its
owner any more. What that leaves to us, as tried on Linux 6.12:

- asking for its status, features and config; and resetting it;
- reading its ring. Ringing the doorbell is of use with some drivers only: those that go by the
  owner's virtual addresses (vdpa_sim unless told otherwise) do nothing any more, and no call tells
  which these are;
- not mapping memory, nor setting up or enabling a queue, not even after a reset.

So such a device can be kept as it is, or given back; who wants to restore to it again gives it back
and opens it anew.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.vhost_vdpa.device import DeviceDescriptors
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, VhostVdpaError
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.virtio.config import pull_config
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.driver_rings import driver_ring
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.layouts import AnyGeometry
from vdpad.virtio.rings import BadGeometry


@dataclass(frozen=True, slots=True)
class RingWords:
    """How far a split ring had come."""

    available: int
    """Chains that were published, by the index's 16 bits; our rings begin at 0."""
    used: int


class AdoptedDevice:
    """The device. Implements what KeptDevice asks of one, and never gives its queue."""

    def __init__(
        self,
        path: Path,
        descriptors: DeviceDescriptors,
        geometry: AnyGeometry,
        features: FeatureSet,
    ) -> None:
        """Asks the device what it is. May sleep for as long as its driver does.

        Args:
            path: of its node.
            descriptors: ours to close, also where this raises.
            geometry: where its ring lies; the memory begins at the ring's.
            features: those that were negotiated.

        Raises:
            VhostVdpaError: it is none any more. The descriptors are closed.
        """
        self._descriptors = descriptors
        self._node = Node.adopted(path, descriptors.node)
        self.geometry = geometry
        self.features = features
        try:
            self.offered: FeatureSet = self._node.get_features()
            self.config = pull_config(self._node.get_config())
            self.status = self._node.get_status()
            self.is_unused, self.ring = _looked_at(descriptors.memory, geometry)
        except (OSError, ValueError) as error:
            self.close()
            raise VhostVdpaError(f"{path}: its ring's memory: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return Feature.RING_EVENT_IDX in self.features

    def queue(self) -> ControlQueue:
        """
        Raises:
            DeviceRefused: always.
        """
        raise DeviceRefused(
            "the daemon was restarted since this device came up, and the kernel lets nobody set up "
            "its queues any more; release the device and restore anew"
        )

    def reset(self) -> None:
        """Resets the device, whoever else has copies of its node."""
        self._node.set_status(0)

    def close(self) -> None:
        """Closes our descriptors; the device stays as it is while others have copies of them."""
        for fd in self._descriptors:
            os.close(fd)


def _looked_at(memory: int, geometry: AnyGeometry) -> tuple[bool, RingWords | None]:
    """Whether its owner had made nothing available, and how far a split ring had come."""
    geometry.check()
    size = geometry.memory.size
    if os.fstat(memory).st_size < size:
        raise BadGeometry(f"expected {size} bytes, got {os.fstat(memory).st_size}")
    with mmap.mmap(memory, size) as mapped, memoryview(mapped) as view:
        ring = driver_ring(geometry, geometry.views(view), event_idx=False, in_order=False)
        try:
            words = None
            if isinstance(ring, DriverRing):
                words = RingWords(ring.available_index, ring.used_index())
            return ring.is_fresh, words
        finally:
            ring.release()
