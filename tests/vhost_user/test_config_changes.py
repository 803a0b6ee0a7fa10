"""When a front end is told of a change of the config space; how, test_session.py says."""

from typing import cast

from vdpad.vhost_user.back_channel import BackChannel
from vdpad.vhost_user.config_changes import ConfigChanges


class RecordingChannel:
    """What is due on a channel whose front end reads nothing."""

    def __init__(self) -> None:
        self.due = 0
        self.is_closed = False

    def config_changed(self) -> None:
        self.due += 1

    def take_back(self) -> bool:
        due, self.due = self.due, 0
        return due > 0

    async def close(self) -> None:
        self.is_closed = True


async def used(changes: ConfigChanges) -> RecordingChannel:
    channel = RecordingChannel()
    await changes.use(cast("BackChannel", channel))
    return channel


async def test_changes_wait_for_a_channel_and_a_start_and_are_told_once() -> None:
    changes = ConfigChanges()
    changes.changed()
    channel = await used(changes)
    changes.changed()
    assert channel.due == 0
    changes.device_started()
    assert channel.due == 1


async def test_a_channel_that_comes_late_is_told_at_once() -> None:
    changes = ConfigChanges()
    changes.device_started()
    changes.changed()
    assert (await used(changes)).due == 1


async def test_what_was_not_read_at_a_stop_is_told_at_the_next_start() -> None:
    changes = ConfigChanges()
    channel = await used(changes)
    changes.device_started()
    changes.changed()
    changes.device_stopping()
    assert channel.due == 0
    changes.device_started()
    assert channel.due == 1


async def test_another_channel_closes_the_first() -> None:
    changes = ConfigChanges()
    first = await used(changes)
    second = await used(changes)
    assert (first.is_closed, second.is_closed) == (True, False)
    await changes.close()
    assert second.is_closed
