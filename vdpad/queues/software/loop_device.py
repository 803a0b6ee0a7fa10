"""A software device that loops: what a guest sends on a queue pair it receives on that pair."""

from vdpad.queues.software.looping import LoopTraffic
from vdpad.queues.software.packet_device import PacketDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import FeatureSet


class LoopDevice(PacketDevice):
    """Implements ShadowedDevice. It is nobody's but its guest's."""

    def __init__(
        self, net: NetConfig = PACKET_CONFIG, features: FeatureSet = PACKET_FEATURES
    ) -> None:
        """A device that was reset; its thread runs until `close`."""
        super().__init__("loop", net, features, LoopTraffic)
