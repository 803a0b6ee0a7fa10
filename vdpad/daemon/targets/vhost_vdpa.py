"""A vhost-vdpa device of this host, by its vdpa name or its node.

`look` goes by netlink and touches no device; `bring_up` opens it, and from then on it is kept.
"""

from dataclasses import dataclass

from vdpad.api.targets import VhostVdpaParams
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.devices.kept import KeptDevice
from vdpad.daemon.targets.host import DeviceNode, find, one_device
from vdpad.daemon.targets.interface import Destination
from vdpad.daemon.targets.nodes import NodePaths
from vdpad.host.vdpa import config_space
from vdpad.queues.vhost_vdpa.device import to_negotiate
from vdpad.queues.vhost_vdpa.errors import NoControlQueue
from vdpad.queues.vhost_vdpa.memory import control_geometry
from vdpad.restore.fitting import missing_features
from vdpad.restore.plan import DoesNotFit
from vdpad.restore.terms import DeviceTerms, Terms
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import RingGeometry

# Netlink tells the size of the device's largest ring, and the CVQ's is often smaller; this is what
# QEMU's has. It decides no more than how many doorbells a check foretells.
_USUAL_RING = 64


@dataclass(frozen=True, slots=True)
class VhostVdpaTarget:
    """Implements Target."""

    params: VhostVdpaParams
    keeper: DeviceKeeper
    paths: NodePaths
    user: int
    """Whose request names it."""

    async def look(self, guest: FeatureSet) -> Terms:
        """By netlink; for a device that is kept, by what was read when it came up."""
        kept = self._kept()
        if kept is not None and kept.is_up:
            return _terms(kept.device.offered, guest, kept.device.config, kept.geometry)
        found = await self._found()
        device, config, offered = await one_device(found.name)
        packed = Feature.RING_PACKED in to_negotiate(offered, guest)
        geometry = control_geometry(min(device.max_vq_size, _USUAL_RING), packed=packed)
        # Only a prepare, which reads the device's config space, refuses by what netlink leaves out.
        return _terms(offered, guest, config_space(config.max_virtqueue_pairs), geometry)

    async def bring_up(self, guest: FeatureSet, migration: str) -> Destination:
        """Opens the device and keeps it."""
        found = await self._find()
        try:
            return await self.keeper.bring_up(found.name, found.node, guest, migration)
        except NoControlQueue as error:
            raise DoesNotFit(str(error), missing_features(guest, error.offered)) from error

    async def _find(self) -> DeviceNode:
        """The device by sysfs; one that is kept by what it was when it was opened."""
        kept = self._kept()
        if kept is not None:
            return DeviceNode(kept.name, kept.node)
        return await self._found()

    async def _found(self) -> DeviceNode:
        return await find(self.params.device, self.params.path, self.paths, self.user)

    def _kept(self) -> KeptDevice | None:
        return self.keeper.get(self.params.device or self.params.path)


def _terms(
    offered: FeatureSet, guest: FeatureSet, config: NetConfig, geometry: RingGeometry
) -> Terms:
    return DeviceTerms.of(to_negotiate(offered, guest), config, geometry)
