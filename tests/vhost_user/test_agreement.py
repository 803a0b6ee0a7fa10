"""What a front end may take, by what the device has."""

import pytest

from tests.vhost_user.recording_device import FEATURES, RecordingDevice
from vdpad.vhost_user import messages
from vdpad.vhost_user.agreement import offered_features, served_protocol_features
from vdpad.vhost_user.messages import ProtocolFeature
from vdpad.virtio.features import Feature


def test_the_protocol_s_own_bits_and_those_past_64_are_not_the_driver_s() -> None:
    others = {messages.LOG_ALL, messages.PROTOCOL_FEATURES, Feature.ACCESS_PLATFORM, 64}
    device = RecordingDevice(features=FEATURES | {63} | others)
    assert offered_features(device) == FEATURES | {63}


@pytest.mark.parametrize("can_move", [False, True])
@pytest.mark.parametrize("can_announce", [False, True])
def test_what_a_device_cannot_do_is_not_served(can_move: bool, can_announce: bool) -> None:
    device = RecordingDevice()
    device.can_move, device.can_announce = can_move, can_announce
    served = served_protocol_features(device)
    assert (ProtocolFeature.DEVICE_STATE in served) == can_move
    assert (ProtocolFeature.RARP in served) == can_announce
    assert ProtocolFeature.INFLIGHT_SHMFD not in served
