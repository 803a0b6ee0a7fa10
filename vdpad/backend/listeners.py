"""Who is told of what a device does. The device knows none of them."""

from collections.abc import Callable
from dataclasses import dataclass

from vdpad.service.events.announcing import Announce


@dataclass(frozen=True, slots=True)
class Listeners:
    """All are called on the event loop, and do not raise."""

    announce: Announce
    """What an operator wants to know."""
    config_changed: Callable[[], None] = lambda: None
    """The config space or NEEDS_RESET is not what it was: for the front end."""
    settings_changed: Callable[[], None] = lambda: None
    """The guest has set something, or begins anew; its command is returned to it afterwards."""
