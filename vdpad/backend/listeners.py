"""Who is told of what a device does. The device knows none of them."""

from collections.abc import Callable
from dataclasses import dataclass

from vdpad.service.events.announcing import Announce
from vdpad.vhost_user.device import Start


@dataclass(frozen=True, slots=True)
class Listeners:
    """All are called on the event loop, and do not raise."""

    announce: Announce
    """What an operator wants to know."""
    config_changed: Callable[[], None] = lambda: None
    """The config space or NEEDS_RESET is not what it was: for the front end."""
    settings_changed: Callable[[], None] = lambda: None
    """The guest has set something, or begins anew; its command is returned to it afterwards."""
    logging_changed: Callable[[], None] = lambda: None
    """The guest's memory is logged, or no more."""
    loaded: Callable[[], None] = lambda: None
    """What a guest had set elsewhere is among the settings now."""
    began: Callable[[Start], None] = lambda start: None
    """A guest begins anew or goes on, the settings are its own, and the device starts next."""
    acknowledged: Callable[[bytes], None] = lambda command: None
    """The device has acknowledged a command, as the settings tell; the guest hears of it next."""
    started: Callable[[Start], None] = lambda start: None
    """The device runs."""
    stopped: Callable[[], None] = lambda: None
    """The device was stopped, and the settings tell where it left its rings."""
    taken_over: Callable[[], None] = lambda: None
    """Another device is in use, with the rings that the one before has left, if it had any; or a
    device goes on with those that it has left itself."""
