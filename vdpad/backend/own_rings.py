"""Used rings of ours, which a device's receive queues can be given in place of the guest's.

One memfd, of which each receive queue has a part in whole pages. The device has it mapped from each
start to its reset, in the address space of the data queues and far from the guest's memory, so that
a switch to these rings and back changes no mapping: some devices build their queues anew when one
changes (mlx5_vdpa).

A guest's descriptors may name these addresses, as all that its data queues reach. It finds nothing
there but its own used elements, and what it writes there harms nobody else: the relay trusts our
rings no more than the guest's.
"""

from collections.abc import Mapping

from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.vhost_vdpa.memory import PAGE, SharedMemory
from vdpad.virtio.rings import Region, align_up
from vdpad.virtio.split_ring import SplitAddresses


class OwnRings:
    """Those of one device. Its methods are steps (steps.py)."""

    def __init__(self, device: ShadowedDevice) -> None:
        """None yet."""
        self._device = device
        self._memory: SharedMemory | None = None
        self._mapped = Region(0, 0)
        self._sizes: dict[int, int] = {}

    def map(self, rings: Mapping[int, SplitAddresses]) -> None:
        """Sees that there is a used ring for each of these, by queue; after `negotiate`.

        Raises:
            VdpadError: there is no memory, or the device does not map it.
        """
        sizes = {queue: align_up(ring.parts()["used"].size, PAGE) for queue, ring in rings.items()}
        region = self._device.spare_addresses(sum(sizes.values()))
        self.unmap()
        if not sizes:
            return
        memory = SharedMemory(region.size)
        try:
            self._device.map(region, memory.view)
        except BaseException:
            memory.close()
            raise
        self._memory, self._mapped, self._sizes = memory, region, sizes

    def unmap(self) -> None:
        """Takes them from the device, which uses none."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self._sizes = {}
            self._device.unmap(self._mapped)
            memory.close()

    def address(self, queue: int) -> int:
        """Where the device sees a queue's."""
        return self._mapped.iova + self._offset(queue)

    def view(self, queue: int) -> memoryview:
        """The bytes of a queue's, for the caller to release."""
        assert self._memory is not None
        at = self._offset(queue)
        return self._memory.view[at : at + self._sizes[queue]]

    def _offset(self, queue: int) -> int:
        return sum(size for other, size in self._sizes.items() if other < queue)
