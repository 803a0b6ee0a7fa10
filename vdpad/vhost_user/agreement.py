"""Which features, and which of the protocol's, a front end may take."""

from vdpad.vhost_user import messages
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.messages import ProtocolFeature
from vdpad.virtio.features import Feature, FeatureSet

# RARP where the device can send a frame for its guest, DEVICE_STATE where it can move.
_SERVED = frozenset(
    {
        ProtocolFeature.MQ,
        ProtocolFeature.LOG_SHMFD,
        ProtocolFeature.RARP,
        ProtocolFeature.REPLY_ACK,
        ProtocolFeature.BACKEND_REQ,
        ProtocolFeature.CONFIG,
        ProtocolFeature.RESET_DEVICE,
        ProtocolFeature.CONFIGURE_MEM_SLOTS,
        ProtocolFeature.STATUS,
        ProtocolFeature.DEVICE_STATE,
    }
)

# Bits 26 and 30 are the protocol's own, and addresses are not translated by an IOMMU of the front
# end's. GET_FEATURES has 64 bits.
_LEFT_OUT: FeatureSet = frozenset(
    {messages.LOG_ALL, messages.PROTOCOL_FEATURES, Feature.ACCESS_PLATFORM}
)
_FEATURE_BITS = 64


def offered_features(device: VhostUserDevice) -> FeatureSet:
    """What a driver may take of what a device has."""
    return frozenset(bit for bit in device.features - _LEFT_OUT if bit < _FEATURE_BITS)


def served_protocol_features(device: VhostUserDevice) -> frozenset[int]:
    """The protocol features that a front end may take."""
    lacks = {
        ProtocolFeature.DEVICE_STATE: not device.can_move,
        ProtocolFeature.RARP: not device.can_announce,
    }
    return _SERVED - {feature for feature, is_so in lacks.items() if is_so}
