"""Front ends as they were recorded: the device is told at each message what it should be."""

import pytest

from tests.vhost_user import conversations
from tests.vhost_user.conftest import Served, serving
from tests.vhost_user.recording_device import RecordingDevice

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_qemu_with_all_queues(served: Served) -> None:
    await conversations.qemu_with_all_queues(served)


@pytest.mark.parametrize("version", ["7.2", "10.0 and 11.1"])
async def test_qemu_that_keeps_the_control_queue(version: str) -> None:
    async with serving(RecordingDevice(queues=5)) as served:
        await conversations.qemu_that_keeps_the_control_queue(served, version)


async def test_crosvm(served: Served) -> None:
    await conversations.crosvm(served)


async def test_testpmd(served: Served) -> None:
    await conversations.testpmd(served)


async def test_every_request(served: Served) -> None:
    await conversations.every_request(served)
