"""Noting the address that a command gives a device, before the device has it: kept/addresses.py."""

from vdpad.backend.forwarder import Forwards
from vdpad.backend.kept.addresses import Addresses
from vdpad.virtio.commands import ACK_OK, MacAddrSet

_SET = bytes(MacAddrSet.CODE)


class Noting:
    """Implements Forwards: an address that a command gives the device is noted before."""

    def __init__(self, addresses: Addresses, forwards: Forwards) -> None:
        self._addresses = addresses
        self._forwards = forwards

    async def forward(self, command: bytes, room: int) -> bytes:
        """The answer to a command."""
        if command[: len(_SET)] != _SET:
            return await self._forwards.forward(command, room)
        addresses, mac = self._addresses, command[len(_SET) :]
        before = addresses.given
        if len(mac) == len(addresses.own):
            addresses.gives(mac)
        answer = await self._forwards.forward(command, room)
        addresses.shows_only((mac,) if answer[0] == ACK_OK else before)
        return answer
