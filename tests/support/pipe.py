"""A pipe of bytes that are known."""

import io
from typing import Any


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time, and never again."""

    def __init__(self, data: bytes, most: int = 1000) -> None:
        self._left = memoryview(data)
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), len(self._left), self._most)
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
