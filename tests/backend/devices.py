"""Software devices whose drivers offer less, so that logging takes another way on them."""

from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.vhost_vdpa.errors import Unsupported


class NeverResumed(LoopDevice):
    """One that can be suspended, and then only reset: it is restarted when logging begins."""

    can_resume = False


class NeverSuspended(LoopDevice):
    """One that only a reset stops: all is marked at its stop. It works in order."""

    can_suspend = can_resume = False

    def suspend(self) -> None:
        """Not offered."""
        raise Unsupported("SUSPEND: not here")
