"""That the config space changed, told to the front end of our own accord.

It is told where the front end has given a channel for that, and while the device runs. What cannot
be told yet is *pending*, however often it changes, and told once when both are so. A message that
the front end has not read when the device stops is taken back and is pending again.
"""

from vdpad.vhost_user.back_channel import BackChannel


class ConfigChanges:
    """Of one session, which says when its device runs."""

    def __init__(self) -> None:
        """There is no channel, and the device is stopped."""
        self._channel: BackChannel | None = None
        self._is_pending = False
        self._runs = False

    async def use(self, channel: BackChannel) -> None:
        """Takes the place of the channel before, which is closed; from now on it is this one's."""
        before, self._channel = self._channel, channel
        if before is not None:
            await before.close()
        self._tell_if_pending()

    def changed(self) -> None:
        """The config space, or NEEDS_RESET, is not what it was."""
        self._is_pending = True
        self._tell_if_pending()

    def device_started(self) -> None:
        """From now on the front end may be told."""
        self._runs = True
        self._tell_if_pending()

    def device_stopping(self) -> None:
        """From now on it is told nothing."""
        self._runs = False
        if self._channel is not None and self._channel.take_back():
            self._is_pending = True

    async def close(self) -> None:
        """Closes the channel, where there is one."""
        if self._channel is not None:
            await self._channel.close()

    def _tell_if_pending(self) -> None:
        if self._is_pending and self._runs and self._channel is not None:
            self._is_pending = False
            self._channel.config_changed()
