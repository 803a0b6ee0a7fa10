"""Feature numbers, as the specification has them."""

import pytest

from vdpad.virtio.features import (
    FEATURES,
    PROVIDED_BY_VMM,
    TRANSPORT,
    Feature,
    commanded,
    unmet_requirements,
)

# virtio 1.4, 5.1.3 and 6, copied by hand.
SPECIFICATION = {
    "CSUM": 0,
    "GUEST_CSUM": 1,
    "CTRL_GUEST_OFFLOADS": 2,
    "MTU": 3,
    "MAC": 5,
    "GSO": 6,
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
    "RSS_CONTEXT": 64,
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


# virtio 1.4, 5.1.3.1 and 5.1.4.2, copied by hand.
REQUIREMENTS = """
    GUEST_TSO4: GUEST_CSUM
    GUEST_TSO6: GUEST_CSUM
    GUEST_ECN: GUEST_TSO4 GUEST_TSO6
    GUEST_UFO: GUEST_CSUM
    GUEST_USO4: GUEST_CSUM
    GUEST_USO6: GUEST_CSUM
    HOST_TSO4: CSUM
    HOST_TSO6: CSUM
    HOST_ECN: HOST_TSO4 HOST_TSO6
    HOST_UFO: CSUM
    HOST_USO: CSUM
    CTRL_RX: CTRL_VQ
    CTRL_VLAN: CTRL_VQ
    GUEST_ANNOUNCE: CTRL_VQ
    MQ: CTRL_VQ
    CTRL_MAC_ADDR: CTRL_VQ
    NOTF_COAL: CTRL_VQ
    RSC_EXT: HOST_TSO4 HOST_TSO6
    RSS: CTRL_VQ
    RSS_CONTEXT: RSS
    VQ_NOTF_COAL: CTRL_VQ
    HASH_TUNNEL: RSS HASH_REPORT
    HASH_REPORT: CTRL_VQ
    CTRL_RX_EXTRA: CTRL_VQ
"""
REQUIRED = {
    name.strip(): wanted.split()
    for name, _, wanted in (line.partition(":") for line in REQUIREMENTS.strip().splitlines())
}


@pytest.mark.parametrize(("name", "wanted"), REQUIRED.items())
def test_a_feature_without_what_it_requires_is_told(name: str, wanted: list[str]) -> None:
    feature = Feature[name]
    (told,) = unmet_requirements(frozenset({feature}))
    assert told == (
        f"the guest negotiated {name} without {' or '.join(wanted)}, which the specification "
        "asks for"
    )
    for each in wanted:
        met = unmet_requirements(frozenset({feature, Feature[each]}))
        assert not any(f"negotiated {name} " in said for said in met)


@pytest.mark.parametrize("feature", [each for each in Feature if each.name not in REQUIRED])
def test_every_other_feature_requires_none(feature: Feature) -> None:
    """CTRL_GUEST_OFFLOADS too, without which its one command goes nowhere."""
    assert unmet_requirements(frozenset({feature})) == ()


def test_those_that_lack_the_same_are_told_together() -> None:
    features = frozenset({Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.HOST_TSO4})
    assert [said.partition(", which")[0] for said in unmet_requirements(features)] == [
        "the guest negotiated GUEST_TSO4, GUEST_TSO6 without GUEST_CSUM",
        "the guest negotiated HOST_TSO4 without CSUM",
    ]


def test_commands_go_over_the_control_queue_alone() -> None:
    features = frozenset({Feature.MQ, Feature.CTRL_RX})
    assert commanded(features) == frozenset()
    assert commanded(features | {Feature.CTRL_VQ}) == features | {Feature.CTRL_VQ}
