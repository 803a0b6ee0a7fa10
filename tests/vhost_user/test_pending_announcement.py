"""An announcement that is asked for before the device runs."""

import pytest

from tests.vhost_user.recording_device import RecordingDevice, Unwilling
from vdpad.vhost_user.pending_announcement import PendingAnnouncement

FIRST, SECOND = bytes.fromhex("525400123456"), bytes.fromhex("525400abcdef")


async def test_the_last_that_was_asked_for_is_announced_once_at_the_start() -> None:
    device = RecordingDevice()
    announcement = PendingAnnouncement(device)
    await announcement.ask(FIRST, running=False)
    await announcement.ask(SECOND, running=False)
    assert device.announced == []
    await announcement.device_started()
    await announcement.device_started()
    assert device.announced == [SECOND.hex()]


async def test_what_is_forgotten_is_not_announced() -> None:
    device = RecordingDevice()
    announcement = PendingAnnouncement(device)
    await announcement.ask(FIRST, running=False)
    announcement.forget()
    await announcement.device_started()
    assert device.announced == []


async def test_only_who_asks_of_a_device_that_runs_is_told_of_its_failure() -> None:
    device = RecordingDevice()
    device.unwilling.add("announce")
    announcement = PendingAnnouncement(device)
    await announcement.ask(FIRST, running=False)
    await announcement.device_started()
    with pytest.raises(Unwilling):
        await announcement.ask(FIRST, running=True)
