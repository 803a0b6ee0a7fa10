"""The feature bits of virtio-net and of its transport.

Names are the specification's without VIRTIO_NET_F_ or VIRTIO_F_, as the `vdpa` tool prints them.
Sources: virtio 1.4, 5.1.3 "Feature bits" and 6 "Reserved Feature Bits"; Linux
include/uapi/linux/virtio_net.h and virtio_config.h.
"""

from collections.abc import Mapping
from enum import IntEnum

from vdpad.virtio.bits import BitNames

__all__ = ["Feature"]


class Feature(IntEnum):
    """A feature and its bit number."""

    # virtio 1.4, 5.1.3: network device
    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    GSO = 6
    """Of legacy devices (5.1.3.2)."""
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    DEVICE_STATS = 50
    HASH_TUNNEL = 51
    VQ_NOTF_COAL = 52
    NOTF_COAL = 53
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    HOST_USO = 56
    HASH_REPORT = 57
    GUEST_HDRLEN = 59
    RSS = 60
    RSC_EXT = 61
    STANDBY = 62
    SPEED_DUPLEX = 63
    RSS_CONTEXT = 64
    GUEST_UDP_TUNNEL_GSO = 65
    GUEST_UDP_TUNNEL_GSO_CSUM = 66
    HOST_UDP_TUNNEL_GSO = 67
    HOST_UDP_TUNNEL_GSO_CSUM = 68

    # virtio 1.4, 6: ring and transport
    NOTIFY_ON_EMPTY = 24
    ANY_LAYOUT = 27
    RING_INDIRECT_DESC = 28
    RING_EVENT_IDX = 29
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    SR_IOV = 37
    NOTIFICATION_DATA = 38
    NOTIF_CONFIG_DATA = 39
    RING_RESET = 40
    ADMIN_VQ = 41


FEATURES = BitNames("feature", Feature, width=128)

FeatureSet = frozenset[int]
"""Feature bit numbers; Feature members where they are known."""

# virtio 1.4, 6: bits 24 to 49 belong to the ring and the transport, which a VMM may translate
# between guest and device, so they may differ on the two sides of a migration.
TRANSPORT = range(24, 50)

# What a VMM answers for out of config space or its own head, whatever the device offers.
PROVIDED_BY_VMM: FeatureSet = frozenset(
    {
        Feature.MAC,
        Feature.MTU,
        Feature.STATUS,
        Feature.GUEST_ANNOUNCE,
        Feature.STANDBY,
        Feature.SPEED_DUPLEX,
    }
)

# virtio 1.4, 5.1.3.1 "Feature bit requirements": each needs at least one of those on the right;
# HASH_TUNNEL and RSS_CONTEXT need CTRL_VQ besides, which RSS needs. The last two are 5.1.4.2's,
# which says SHOULD.
REQUIRES: Mapping[Feature, tuple[Feature, ...]] = {
    Feature.GUEST_TSO4: (Feature.GUEST_CSUM,),
    Feature.GUEST_TSO6: (Feature.GUEST_CSUM,),
    Feature.GUEST_ECN: (Feature.GUEST_TSO4, Feature.GUEST_TSO6),
    Feature.GUEST_UFO: (Feature.GUEST_CSUM,),
    Feature.GUEST_USO4: (Feature.GUEST_CSUM,),
    Feature.GUEST_USO6: (Feature.GUEST_CSUM,),
    Feature.HOST_TSO4: (Feature.CSUM,),
    Feature.HOST_TSO6: (Feature.CSUM,),
    Feature.HOST_ECN: (Feature.HOST_TSO4, Feature.HOST_TSO6),
    Feature.HOST_UFO: (Feature.CSUM,),
    Feature.HOST_USO: (Feature.CSUM,),
    Feature.CTRL_RX: (Feature.CTRL_VQ,),
    Feature.CTRL_VLAN: (Feature.CTRL_VQ,),
    Feature.GUEST_ANNOUNCE: (Feature.CTRL_VQ,),
    Feature.MQ: (Feature.CTRL_VQ,),
    Feature.CTRL_MAC_ADDR: (Feature.CTRL_VQ,),
    Feature.NOTF_COAL: (Feature.CTRL_VQ,),
    Feature.RSC_EXT: (Feature.HOST_TSO4, Feature.HOST_TSO6),
    Feature.RSS: (Feature.CTRL_VQ,),
    Feature.RSS_CONTEXT: (Feature.RSS,),
    Feature.VQ_NOTF_COAL: (Feature.CTRL_VQ,),
    Feature.HASH_TUNNEL: (Feature.RSS, Feature.HASH_REPORT),
    Feature.HASH_REPORT: (Feature.CTRL_VQ,),
    Feature.CTRL_RX_EXTRA: (Feature.CTRL_VQ,),
}


def unmet_requirements(features: FeatureSet) -> tuple[str, ...]:
    """What these features lack by the specification, as sentences.

    Guests run so all the same: Linux keeps GUEST_TSO4 where a device does not offer GUEST_CSUM.
    """
    lacking: dict[tuple[Feature, ...], list[Feature]] = {}
    for feature, wanted in REQUIRES.items():
        if feature in features and features.isdisjoint(wanted):
            lacking.setdefault(wanted, []).append(feature)
    return tuple(
        f"the guest negotiated {FEATURES.sentence(those)} without "
        f"{' or '.join(each.name for each in wanted)}, which the specification asks for"
        for wanted, those in lacking.items()
    )


def commanded(features: FeatureSet) -> FeatureSet:
    """Those of which a guest with these features can have sent commands: none without CTRL_VQ."""
    return features if Feature.CTRL_VQ in features else frozenset()
