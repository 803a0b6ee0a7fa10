"""Feature numbers, as the specification has them."""

import pytest

from vdpad.virtio.features import FEATURES, PROVIDED_BY_VMM, REQUIRES, TRANSPORT, Feature

# virtio 1.4, 5.1.3 and 6, copied by hand.
SPECIFICATION = {
    "CSUM": 0,
    "GUEST_CSUM": 1,
    "CTRL_GUEST_OFFLOADS": 2,
    "MTU": 3,
    "MAC": 5,
    "GUEST_TSO4": 7,
    "GUEST_TSO6": 8,
    "GUEST_ECN": 9,
    "GUEST_UFO": 10,
    "HOST_TSO4": 11,
    "HOST_TSO6": 12,
    "HOST_ECN": 13,
    "HOST_UFO": 14,
    "MRG_RXBUF": 15,
    "STATUS": 16,
    "CTRL_VQ": 17,
    "CTRL_RX": 18,
    "CTRL_VLAN": 19,
    "CTRL_RX_EXTRA": 20,
    "GUEST_ANNOUNCE": 21,
    "MQ": 22,
    "CTRL_MAC_ADDR": 23,
    "DEVICE_STATS": 50,
    "HASH_TUNNEL": 51,
    "VQ_NOTF_COAL": 52,
    "NOTF_COAL": 53,
    "GUEST_USO4": 54,
    "GUEST_USO6": 55,
    "HOST_USO": 56,
    "HASH_REPORT": 57,
    "GUEST_HDRLEN": 59,
    "RSS": 60,
    "RSC_EXT": 61,
    "STANDBY": 62,
    "SPEED_DUPLEX": 63,
    "GUEST_UDP_TUNNEL_GSO": 65,
    "GUEST_UDP_TUNNEL_GSO_CSUM": 66,
    "HOST_UDP_TUNNEL_GSO": 67,
    "HOST_UDP_TUNNEL_GSO_CSUM": 68,
    "ANY_LAYOUT": 27,
    "RING_INDIRECT_DESC": 28,
    "RING_EVENT_IDX": 29,
    "VERSION_1": 32,
    "ACCESS_PLATFORM": 33,
    "RING_PACKED": 34,
    "IN_ORDER": 35,
    "ORDER_PLATFORM": 36,
    "NOTIFICATION_DATA": 38,
    "RING_RESET": 40,
}


@pytest.mark.parametrize(("name", "bit"), SPECIFICATION.items())
def test_a_feature_has_the_specification_s_number(name: str, bit: int) -> None:
    assert FEATURES.bit(name) == bit
    assert FEATURES.name(bit) == name


def test_a_feature_of_the_ring_or_the_transport_is_counted_among_them() -> None:
    assert {Feature.RING_PACKED, Feature.VERSION_1, Feature.RING_EVENT_IDX} <= set(TRANSPORT)
    assert not {Feature.CTRL_MAC_ADDR, Feature.DEVICE_STATS, Feature.MQ} & set(TRANSPORT)


def test_what_a_vmm_provides_needs_no_command_but_the_announcement() -> None:
    from vdpad.virtio.commands import COMMANDS

    gating = {command.FEATURE for command in COMMANDS.values()}
    assert gating & PROVIDED_BY_VMM == {Feature.GUEST_ANNOUNCE}


@pytest.mark.parametrize(
    ("feature", "wanted"),
    [
        (Feature.MQ, {Feature.CTRL_VQ}),
        (Feature.CTRL_RX_EXTRA, {Feature.CTRL_VQ}),
        (Feature.GUEST_TSO4, {Feature.GUEST_CSUM}),
        (Feature.GUEST_USO6, {Feature.GUEST_CSUM}),
        (Feature.GUEST_ECN, {Feature.GUEST_TSO4, Feature.GUEST_TSO6}),
        (Feature.RSS, {Feature.CTRL_VQ}),
    ],
)
def test_a_feature_needs_what_the_specification_says(
    feature: Feature, wanted: set[Feature]
) -> None:
    assert set(REQUIRES[feature]) == wanted
