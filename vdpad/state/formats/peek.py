"""Looking at what a stream holds without losing it: a pipe gives its bytes once."""

import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Streams are walked in small steps.
_BUFFER = 256 * 1024
_AT_ONCE = 1 << 20


def first(stream: BinaryIO, count: int) -> bytes:
    """The next so many bytes, or all where there are fewer; a pipe may give them in bits."""
    # Parts that are joined at the end would be held twice then.
    got = io.BytesIO()
    # A stream makes room for all that it is asked for, however little it has.
    while (left := count - got.tell()) and (more := stream.read(min(left, _AT_ONCE))):
        got.write(more)
    return got.getvalue()


def put_back(head: bytes, stream: BinaryIO) -> BinaryIO:
    """The stream with these bytes before it; it stays open when this one closes."""
    return io.BufferedReader(_PutBack(head, stream), _BUFFER)


class _PutBack(io.RawIOBase):
    """A stream whose first bytes have been read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = memoryview(head)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        room = memoryview(buffer).cast("B")
        chunk: bytes | memoryview
        if self._head:
            chunk, self._head = self._head[: len(room)], self._head[len(room) :]
        else:
            chunk = self._stream.read(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)
