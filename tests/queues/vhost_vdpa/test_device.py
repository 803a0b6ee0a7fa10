"""What of a device that we keep can be tried without one; the rest is in tests/vm."""

from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice, to_negotiate
from vdpad.queues.vhost_vdpa.errors import VhostVdpaError
from vdpad.virtio.features import Feature


def test_what_the_guest_had_and_the_device_has_not_is_left_out() -> None:
    offered = frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.VERSION_1})
    guest = frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN})
    assert to_negotiate(offered, guest) == offered


def test_what_the_device_offers_and_the_guest_had_not_is_left_out() -> None:
    offered = frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.RSS, Feature.VERSION_1})
    assert Feature.RSS not in to_negotiate(offered, frozenset({Feature.CTRL_VLAN}))


@pytest.mark.parametrize(
    "ours",
    [Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM, Feature.CTRL_VQ],
)
def test_what_the_kernel_and_we_need_is_taken_whatever_the_guest_had(ours: Feature) -> None:
    assert to_negotiate(frozenset({ours}), frozenset()) == {ours}


@pytest.mark.parametrize(
    ("feature", "taken"),
    [
        (Feature.RING_EVENT_IDX, True),
        (Feature.RING_INDIRECT_DESC, True),
        (Feature.RING_PACKED, True),
        (Feature.IN_ORDER, True),
        (Feature.NOTIFICATION_DATA, False),
        (Feature.ADMIN_VQ, False),
    ],
)
def test_of_the_ring_s_features_only_those_that_a_replay_knows(
    feature: Feature, taken: bool
) -> None:
    both = frozenset({feature})
    assert (feature in to_negotiate(both, both)) is taken
    assert to_negotiate(both, frozenset()) == frozenset()


def test_another_kind_of_device() -> None:
    with no_descriptor_left(), pytest.raises(VhostVdpaError, match=r"GET_DEVICE_ID: .*\(ENOTTY\)"):
        VhostVdpaDevice(Path("/dev/null"), frozenset())
