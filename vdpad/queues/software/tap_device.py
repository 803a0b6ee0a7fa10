"""A software device with a network behind it: its guest's packets go through a TAP interface.

The guest's address is the interface's with another first byte, as libvirt has it the other way
round: whoever wants 52:54:00:12:34:56 for the guest gives the interface fe:54:00:12:34:56. Two
interfaces of a host have two addresses, and so have their guests.
"""

from dataclasses import replace
from functools import partial

from vdpad.queues.software.packet_device import PacketDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.queues.software.rarp import rarp_request
from vdpad.queues.software.tap import Tap
from vdpad.queues.software.tapping import TapTraffic

_GUEST, _OTHER_GUEST = 0x52, 0x56


class TapDevice(PacketDevice):
    """Implements ShadowedDevice."""

    can_announce = True

    def __init__(self, tap: Tap) -> None:
        """A device that was reset; its thread runs until `close`.

        Args:
            tap: closed by `close`.
        """
        net = replace(PACKET_CONFIG, mac=guest_address(tap.address))
        super().__init__(f"tap:{tap.name}", net, PACKET_FEATURES, partial(TapTraffic, tap))
        self._tap = tap

    def announce(self, mac: bytes) -> None:
        """Lets the host receive the frame."""
        if not self._do(lambda: self._tap.write(rarp_request(mac))):
            raise PacketDeviceRefused(
                f"{self.name}: expected an interface that takes frames, it is down or gone; set it "
                "up (`ip link set NAME up`)"
            )

    def close(self) -> None:
        """Ends the thread and lets go of all memory and descriptors, and of the interface."""
        super().close()
        self._tap.close()


def guest_address(host: bytes) -> bytes:
    """The address at a guest's end of the link whose other end has this one; each of 6 bytes."""
    first = _GUEST if host[0] != _GUEST else _OTHER_GUEST
    return bytes((first,)) + host[1:]
