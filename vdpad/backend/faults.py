"""What keeps a device from serving a guest. The front end is told, and an operator."""

from vdpad.errors import VdpadError


class BackEndError(VdpadError):
    """The device is not given to the guest as the front end wants it."""


class SharedAddressSpace(BackEndError):
    """The guest's descriptors could name the CVQ's ring, and nobody has said that they may."""


class CannotStart(BackEndError):
    """The device does not begin to serve these rings."""


class NotRestored(CannotStart):
    """The device does not take what the guest had set before."""


class NotAnswered(BackEndError):
    """The device did with a command what no device may, or nothing."""
