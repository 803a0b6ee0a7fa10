"""A file system whose server answers only what it must for a file to be opened.

Source: Linux include/uapi/linux/fuse.h.
"""

import ctypes
import os
import select
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INIT, _LOOKUP, _GETATTR, _OPEN = 26, 1, 3, 14
_IN_HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT_HEADER = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_INIT_OUT = struct.Struct("<IIIIHHII36x")
_ROOT, _FILE = 1, 2
_MNT_DETACH = 2

# In seconds, how long it says nothing. Whoever sleeps on it cannot be killed, and so nor can the
# server that lies in the same process: then the file system ends, and he is told so.
_SAYS_NOTHING = 90.0

_libc = ctypes.CDLL(None, use_errno=True)


class _Server(threading.Thread):
    """Lets `file` be opened, and answers nothing of what is asked of it then."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._size = size
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self.asked = threading.Event()
        """Set once something was asked that stays without an answer."""

    def run(self) -> None:
        ends = time.monotonic() + _SAYS_NOTHING
        while ready := self._ready(ends):
            if self._end in ready:
                return
            request = os.read(self._fd, 1 << 17)
            _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
            reply = self._reply(opcode, node)
            if reply is None:
                self.asked.set()
            else:
                size = _OUT_HEADER.size + len(reply)
                os.write(self._fd, _OUT_HEADER.pack(size, 0, unique) + reply)
        # The number stays the caller's to close.
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, self._fd, inheritable=False)
        os.close(nowhere)

    def _ready(self, ends: float) -> list[int]:
        """What can be read; nothing once it is that time."""
        left = max(0.0, ends - time.monotonic())
        return select.select([self._fd, self._end], [], [], left)[0]

    def stop(self) -> None:
        """Returns when it serves no more."""
        os.eventfd_write(self._end, 1)
        self.join()
        os.close(self._end)

    def _reply(self, opcode: int, node: int) -> bytes | None:
        if opcode == _INIT:
            return _INIT_OUT.pack(7, 31, 0, 0, 16, 12, 1 << 16, 1)
        if opcode == _LOOKUP:
            return _ENTRY.pack(_FILE, 0, 0, 0, 0, 0) + _attr(_FILE, self._size)
        if opcode == _OPEN:
            return _OPEN_OUT.pack(0, 0, 0)
        if opcode == _GETATTR and node == _ROOT:
            return _ATTR_OUT.pack(0, 0, 0) + _attr(_ROOT, 0)
        return None


def _attr(node: int, size: int) -> bytes:
    mode = (stat.S_IFDIR | 0o755) if node == _ROOT else (stat.S_IFREG | 0o644)
    return _ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def silent_file(folder: Path, size: int = 0) -> Iterator[tuple[int, threading.Event]]:
    """An open file of that file system, and an event that is set when it is asked anything.

    Whoever asks sleeps until the block ends. The descriptor is the caller's to close.

    Args:
        folder: where it is mounted.
        size: bytes that the file is said to have, none of which is ever read.
    """
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    if _libc.mount(b"vdpad-test", bytes(folder), b"fuse", 0, options):
        error = ctypes.get_errno()
        os.close(fuse)
        raise OSError(error, os.strerror(error))
    server = _Server(fuse, size)
    server.start()
    try:
        yield os.open(folder / "file", os.O_RDONLY | os.O_CLOEXEC), server.asked
    finally:
        _libc.umount2(bytes(folder), _MNT_DETACH)
        server.stop()
        # With its last descriptor the connection ends, and whoever sleeps is told so.
        os.close(fuse)
