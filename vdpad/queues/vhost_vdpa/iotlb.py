"""The memory that a device sees: regions of this process's, mapped and unmapped as pairs.

The kernel's own interface forgives nothing and tells little. An INVALIDATE takes away whatever its
range touches, whole, and is content where there is nothing; a failed UPDATE is EFAULT, whatever the
reason. So what was mapped is written down here, only that is unmapped, and what can be told wrong
beforehand is.

Regions stay mapped through a device's reset. The kernel keeps them if it has IOTLB_PERSIST; without
it, it keeps its own list but lets the driver drop what it had, so `restore` maps all of it again.

Source: Linux 6.12, drivers/vhost/vdpa.c (vhost_vdpa_process_iotlb_msg, vhost_vdpa_pa_map and
vhost_vdpa_va_map), drivers/vhost/vhost.c (vhost_chr_write_iter).
"""

import math
import mmap
import resource
from pathlib import Path

from vdpad.queues.vhost_vdpa.errors import BadMapping, MemoryLimit, VhostVdpaError
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.virtio.rings import Region


class Iotlb:
    """What one device sees. Mapping may sleep for seconds: the kernel pins every page."""

    def __init__(
        self, node: Node, *, reachable: Region, address_spaces: int, persists: bool
    ) -> None:
        """
        Args:
            node: owned by this process.
            reachable: the device addresses that there are.
            address_spaces: how many may be named; 1 where IOTLB_ASID was not accepted.
            persists: IOTLB_PERSIST was accepted.
        """
        self._node = node
        self._address_spaces = address_spaces
        self._persists = persists
        self._reachable = reachable
        self._mapped: dict[tuple[int, Region], int] = {}

    def map(self, asid: int, region: Region, address: int) -> None:
        """Lets the device read and write memory of this process, which must stay until `unmap`.

        Args:
            asid: the address space; 0 is that of all queues unless they were given another.
            region: where the device sees it; whole pages.
            address: of the memory here, on a page. It must be mapped MAP_SHARED from a file: of
                anything else a driver that goes by virtual addresses sees nothing, and none tells.

        Raises:
            BadMapping: it is no such region, or overlaps one that is mapped. Nothing was mapped.
            MemoryLimit: RLIMIT_MEMLOCK is too small.
            VhostVdpaError: the kernel refused it for a reason that it does not tell.
        """
        self._check(asid, region, address)
        self._update(asid, region, address)
        self._mapped[asid, region] = address

    def unmap(self, asid: int, region: Region) -> None:
        """Takes a region from the device. The device must not be using it any more.

        Raises:
            BadMapping: no such region was mapped; a part of one cannot be unmapped.
        """
        if (asid, region) not in self._mapped:
            raise BadMapping(
                f"expected a region that is mapped in address space {asid}, got {region}; "
                "unmap what was mapped, as it was mapped"
            )
        self._node.iotlb_invalidate(asid, region)
        del self._mapped[asid, region]

    def restore(self) -> None:
        """Sees that all is mapped as it was before the reset that has just been.

        Raises:
            VhostVdpaError, MemoryLimit: what was mapped cannot be any more; it is forgotten.
        """
        if self._persists:
            return
        for (asid, region), address in list(self._mapped.items()):
            # The kernel has the region listed and would refuse it twice.
            del self._mapped[asid, region]
            self._node.iotlb_invalidate(asid, region)
            self.map(asid, region, address)

    def _check(self, asid: int, region: Region, address: int) -> None:
        if not 0 <= asid < self._address_spaces:
            raise BadMapping(
                f"expected an address space below {self._address_spaces}, got {asid}; the device "
                "has no more"
            )
        if region.size < 1 or any(each % mmap.PAGESIZE for each in (*region, address)):
            raise BadMapping(
                f"expected whole pages of {mmap.PAGESIZE} bytes, got {region} at {address:#x}"
            )
        if region.iova < self._reachable.iova or region.end > self._reachable.end:
            raise BadMapping(f"expected device addresses inside {self._reachable}, got {region}")
        for space, other in self._mapped:
            if space == asid and region.iova < other.end and other.iova < region.end:
                raise BadMapping(
                    f"expected {region} to be free, {other} is mapped there; unmap it first"
                )

    def _update(self, asid: int, region: Region, address: int) -> None:
        pinned, most = _pinned_bytes(), _most_pinned_bytes()
        try:
            self._node.iotlb_update(asid, region, address)
        except VhostVdpaError as error:
            # This one can be told, by counting as the kernel does.
            if pinned + region.size <= most:
                raise
            raise MemoryLimit(
                f"{self._node.path}: expected to lock {region.size} bytes beside {pinned}, "
                f"got a limit of {most} (RLIMIT_MEMLOCK); raise it (systemd: LimitMEMLOCK=)"
            ) from error


def _pinned_bytes() -> int:
    """What of this process is locked for devices, as the kernel counts against the limit."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPin:"):
            return int(line.split()[1]) * 1024
    return 0


def _most_pinned_bytes() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return math.inf if soft == resource.RLIM_INFINITY else soft
