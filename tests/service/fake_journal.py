"""The journal's end of its native protocol, by https://systemd.io/JOURNAL_NATIVE_PROTOCOL alone.

Nothing of vdpad's own code is used. What a real journald would refuse fails here too.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import socket
from pathlib import Path

Fields = list[tuple[str, bytes]]

# journald's own rule for a name: journal_field_valid() in systemd.
NAME = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")
SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class FakeJournal:
    """A socket that takes entries, and reads them when it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memfds = 0
        """How many entries came as such."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))

    def __enter__(self) -> FakeJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def raw(self) -> list[Fields]:
        """The entries that came since, as they came."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._one()
                if data:
                    found.append(parsed(data))
        return found

    def entries(self) -> list[dict[str, list[str]]]:
        """The same, as journalctl would show them: each field's values."""
        found = []
        for fields in self.raw():
            entry: dict[str, list[str]] = {}
            for name, value in fields:
                entry.setdefault(name, []).append(value.decode())
            found.append(entry)
        return found

    def _one(self) -> bytes:
        size = array.array("i").itemsize
        data, control, flags, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4 * size))
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        fds = array.array("i")
        for _, _, payload in control:
            fds.frombytes(payload)
        if not fds:
            return data
        (fd,) = fds
        try:
            assert data == b""  # a payload beside a descriptor is refused
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALED == SEALED
            self.memfds += 1
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)


def parsed(data: bytes) -> Fields:
    """An entry's fields."""
    fields = []
    while data:
        line, newline, rest = data.partition(b"\n")
        assert newline
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, end = rest[8 : 8 + length], rest[8 + length : 9 + length]
            assert (len(value), end) == (length, b"\n")
            rest = rest[9 + length :]
        assert NAME.fullmatch(name), name
        fields.append((name.decode(), value))
        data = rest
    return fields
