"""Reading forward, with every failure told by its offset in the whole stream."""

import io
import os
import struct
from typing import BinaryIO, Self

from vdpad.state.formats import peek
from vdpad.state.found import FormatError

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
# So much is read at once where bytes are only passed over.
_SKIP = 1 << 20


class Source:
    """Bytes in their order, from a pipe, a file or memory. All integers are big-endian.

    Every method raises FormatError where the bytes end too early.
    """

    def __init__(self, stream: BinaryIO, at: int = 0, where: str = "the header") -> None:
        self._stream = stream
        self._seekable = stream.seekable()
        self._seen, self._seen_at = b"", 0
        """Of a pipe: what was looked at, and how much of it was taken."""
        self.at = at
        """Offset of the next byte in the whole stream."""
        self.where = where
        """What is being read, for people."""

    @classmethod
    def over(cls, data: bytes, at: int, where: str) -> Self:
        """A source of bytes in memory that stand at this offset of the stream."""
        return cls(io.BytesIO(data), at, where)

    def wrong(self, expected: str, got: str, at: int | None = None) -> FormatError:
        """The error to raise where something else stands than what was expected."""
        offset = self.at if at is None else at
        return FormatError(f"at byte {offset}, in {self.where}: expected {expected}, got {got}")

    def take(self, count: int, what: str) -> bytes:
        """So many bytes."""
        taken = self._read(count) if self._seen else self._stream.read(count)
        while len(taken) < count:
            more = self._read(count - len(taken))
            if not more:
                raise self.wrong(f"{count} bytes of {what}", f"{len(taken)} before the end")
            taken += more
        self.at += count
        return taken

    def _read(self, count: int) -> bytes:
        """At most so many bytes; none at the end alone."""
        if not self._seen:
            return self._stream.read(count)
        taken = self._seen[self._seen_at : self._seen_at + count]
        self._seen_at += len(taken)
        if self._seen_at == len(self._seen):
            self._seen, self._seen_at = b"", 0
        return taken

    def skip(self, count: int, what: str) -> None:
        """Passes over so many bytes without holding them."""
        if self._seekable:
            self._skip_in_file(count, what)
            return
        while count > 0:
            count -= len(self.take(min(count, _SKIP), what))

    def _skip_in_file(self, count: int, what: str) -> None:
        stood = self._stream.tell()
        left = self._stream.seek(0, os.SEEK_END) - stood
        if count > left:
            raise self.wrong(f"{count} bytes of {what}", f"{left} before the end")
        self._stream.seek(stood + count)
        self.at += count

    def ahead(self, most: int) -> bytes:
        """The next bytes, which stay to be taken: so many, or fewer where the stream ends."""
        if self._seekable:
            stood = self._stream.tell()
            seen = peek.first(self._stream, most)
            self._stream.seek(stood)
            return seen
        seen = self._seen[self._seen_at :]
        seen += peek.first(self._stream, most - len(seen)) if len(seen) < most else b""
        self._seen, self._seen_at = seen, 0
        return seen[:most]

    def held(self, most: int) -> BinaryIO | None:
        """What follows, as a file: the stream itself, or all of a pipe; None where that is more
        than so many bytes, which stay to be taken."""
        if self._seekable:
            return self._stream
        rest = self.ahead(most + 1)
        return io.BytesIO(rest) if len(rest) <= most else None

    def u8(self, what: str) -> int:
        """One byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Two bytes."""
        value: int = _U16.unpack(self.take(2, what))[0]
        return value

    def u32(self, what: str) -> int:
        """Four bytes."""
        value: int = _U32.unpack(self.take(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        """Eight bytes."""
        value: int = _U64.unpack(self.take(8, what))[0]
        return value

    def flag(self, what: str) -> bool:
        """One byte that is 0 or 1."""
        value = self.u8(what)
        if value > 1:
            raise self.wrong(f"0 or 1 as {what}", str(value), self.at - 1)
        return bool(value)

    def name(self, what: str) -> str:
        """A length byte and so many bytes of printable ASCII."""
        start = self.at
        raw = self.take(self.u8(f"the length of {what}"), what)
        name = raw.decode("ascii", errors="replace")
        if not name.isascii() or not name.isprintable():
            raise self.wrong(f"{what} in printable ASCII", raw.hex(), start)
        return name

    def expect(self, what: str, expected: int, got: int, size: int) -> None:
        """Refuses a value of so many bytes, just read, that is not the expected one."""
        if got != expected:
            raise self.wrong(f"{what} {expected:#x}", f"{got:#x}", self.at - size)
