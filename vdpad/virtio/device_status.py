"""The device status field: how far the driver has brought the device, and what the device says.

Source: virtio 1.4, 2.1 "Device Status Field".
"""

from enum import IntFlag


class DeviceStatus(IntFlag):
    """The bits. No bit is a device that was reset."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128
