"""What a device is found out at."""

from vdpad.errors import VdpadError


class DeviceFault(VdpadError):
    """What the device did that no device may."""
