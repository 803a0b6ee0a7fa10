"""Reads the big-endian integers of a migration stream one after the other."""

from __future__ import annotations


class StreamError(ValueError):
    """A migration stream isn't as QEMU writes it."""


class Cursor:
    """A place in some bytes. Every read moves it, and raises StreamError past the end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def left(self) -> int:
        """Bytes behind the cursor."""
        return len(self._data) - self.at

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        if size > self.left:
            raise StreamError(f"{size} bytes wanted at {self.at}, {self.left} are left")
        self.at += size
        return self._data[self.at - size : self.at]

    def u8(self) -> int:
        """Read 8 bits."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Read 16 bits."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Read 32 bits."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Read 64 bits."""
        return int.from_bytes(self.take(8), "big")

    def flag(self) -> bool:
        """Read a byte that must be 0 or 1."""
        value = self.u8()
        if value > 1:
            raise StreamError(f"{value} at {self.at - 1}, where a flag should be")
        return bool(value)

    def name(self) -> str:
        """Read a name with a length byte before it."""
        return self.take(self.u8()).decode("ascii", errors="replace")

    def expect(self, what: str, value: int, found: int) -> None:
        """Raise StreamError unless what was just found is the value that must be there."""
        if found != value:
            raise StreamError(f"{what} before {self.at} is {found:#x}, not {value:#x}")
