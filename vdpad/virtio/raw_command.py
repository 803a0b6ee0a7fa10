"""A command as bytes, for who passes on what a guest sent, whether or not commands.py knows it."""

from dataclasses import dataclass
from typing import ClassVar, final

from vdpad.virtio.commands import Command, DecodeError, decode_command

_HEADER = 2  # class and command, a byte each
# So that a report line fits a screen.
_MAX_SHOWN = 32


@final
@dataclass(frozen=True, slots=True)
class RawCommand:
    """One that is not known, or whose data is not as vdpad writes it. No plan has any."""

    NAME: ClassVar[str] = "RAW"
    """What it is called in reports."""
    code: tuple[int, int]
    """Class and command, each 0 … 255."""
    data: bytes
    """What stands behind them."""

    def encode(self) -> bytes:
        """The device-readable part."""
        return bytes(self.code) + self.data

    def arguments(self) -> str:
        """For a report line: class, command, the data's length, and its first bytes."""
        numbers = "class={} command={}".format(*self.code)
        return f"{numbers} size={len(self.data)} data={self.data[:_MAX_SHOWN].hex()}"


AnyCommand = Command | RawCommand
"""What can be sent."""


def decode_or_raw(readable: bytes) -> AnyCommand:
    """The command in a chain's device-readable bytes; as its bytes where it is none that is known,
    or would be written otherwise, as one with reserved words that are not zero.

    Raises:
        DecodeError: shorter than class and command.
    """
    try:
        command = decode_command(readable)
    except DecodeError:
        if len(readable) < _HEADER:
            raise
    else:
        if command.encode() == readable:
            return command
    return RawCommand((readable[0], readable[1]), readable[_HEADER:])
