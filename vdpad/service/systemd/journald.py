"""journald's native protocol: one datagram an entry, to a Unix socket that never holds us up.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL: an entry is its fields, one after the other, each as
NAME=value and a newline; a value that holds a newline itself goes as NAME, a newline, its length
(le64), the value and a newline. What the socket does not take in one datagram goes as a sealed
memfd.

An entry that cannot be sent at once is dropped and counted, and the next that gets through is
preceded by one that tells how many were lost.
"""

import array
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping, MutableMapping
from functools import cache
from typing import Any

from vdpad.service.events.kinds import EntriesLost
from vdpad.service.systemd.memfd import sealed_memfd

JOURNAL_SOCKET = "/run/systemd/journal/socket"

_IDENTIFIER = "vdpad"

# syslog(3), by structlog's names for levels.
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
_OF_UNKNOWN_LEVEL = "5"

# Those of the keys in an event that are fields with a meaning of their own in the journal.
_WELL_KNOWN = {"message": "MESSAGE", "message_id": "MESSAGE_ID"}

_LENGTH = struct.Struct("<Q")

# Of half a surrogate pair, which JSON can bring in.
_UNENCODABLE = "backslashreplace"

# As sd_journal_send has it: room for entries that journald has not come to yet.
_SEND_BUFFER = 8 * 1024 * 1024

# What the kernel says of a datagram that is too large: for the socket, or for memory in one piece.
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)


def is_the_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected this descriptor to the journal.

    systemd.exec(5), $JOURNAL_STREAM: the device and inode that it had given us. They differ where
    the descriptor has been redirected since, by a shell for instance.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields as the protocol has them; no value can add a field, whatever it holds."""
    lines, long = [], []
    for name, value in fields:
        if "\n" in value:
            data = value.encode(errors=_UNENCODABLE)
            long.append(b"%b\n%b%b\n" % (name.encode(), _LENGTH.pack(len(data)), data))
        else:
            lines.append(f"{name}={value}\n")
    return b"".join(("".join(lines).encode(errors=_UNENCODABLE), *long))


def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """A structlog renderer: the entry of an event."""
    level = event.pop("level", None)
    fields = [
        ("PRIORITY", _PRIORITIES.get(level, _OF_UNKNOWN_LEVEL)),
        ("SYSLOG_IDENTIFIER", _IDENTIFIER),
    ]
    if "message" not in event:
        fields.append(("MESSAGE", str(event["event"])))
    for key, value in event.items():
        name = _name(key)
        if isinstance(value, str):
            fields.append((name, value))
        elif isinstance(value, list | tuple):
            fields += [(name, str(each)) for each in value]
        elif value is not None:
            fields.append((name, _text(value)))
    return entry(fields)


@cache
def _name(key: str) -> str:
    return _WELL_KNOWN.get(key) or f"VDPAD_{key.upper()}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Journald:
    """The journal's socket, as a logger that never blocks and never raises."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Not connected: the socket at the path may be another when journald has been restarted.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._lost = 0
        self.dropped = 0
        """Entries that the journal did not take, ever."""

    def is_present(self) -> bool:
        """Whether anybody takes entries: journald ignores an empty one."""
        try:
            self._socket.sendto(b"", self._path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Closes the socket. Nothing may be logged afterwards."""
        self._socket.close()

    def msg(self, data: bytes) -> None:
        """Sends an entry, or counts it."""
        if self._lost and self._sent(_lost(self._lost)):
            self._lost = 0
        if self._lost or not self._sent(data):
            self._lost += 1
            self.dropped += 1

    debug = info = warning = error = critical = exception = msg

    def _sent(self, data: bytes) -> bool:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            return error.errno in _TOO_LARGE and self._sent_as_memfd(data)
        return True

    def _sent_as_memfd(self, data: bytes) -> bool:
        with contextlib.suppress(OSError):
            memfd = sealed_memfd("vdpad-journal", data)
            try:
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memfd]))]
                self._socket.sendmsg([], control, 0, self._path)
            finally:
                os.close(memfd)
            return True
        return False


def _lost(count: int) -> bytes:
    event = EntriesLost(count)
    return render(
        None,
        "",
        {
            "level": "warning",
            "event": event.NAME,
            "message": event.sentence(),
            "message_id": event.MESSAGE_ID,
            "lost": count,
        },
    )
