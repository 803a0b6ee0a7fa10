"""What is wrong with a queue that cannot be relayed."""

from vdpad.errors import VdpadError


class DeviceBroken(VdpadError):
    """The device does with our used ring what no device may."""


class RingMoved(VdpadError):
    """The guest's used ring has moved by itself: the device goes on writing there."""
