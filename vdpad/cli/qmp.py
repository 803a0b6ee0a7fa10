"""A QMP client that asks and waits: one JSON object a line.

QEMU greets, is told qmp_capabilities, and then answers each command with one `return` or `error`,
in order. Events may stand anywhere between and are passed over. QEMU speaks to one client of a
socket at a time: another one is let in and hears nothing, so everything here has a time limit.

Source: QEMU docs/interop/qmp-spec.rst.
"""

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vdpad.cli.failures import QmpError
from vdpad.errors import why
from vdpad.wire import strict_json
from vdpad.wire.strict_json import Most
from vdpad.wire.unreachable import who_may_use

# Full VLAN and MAC tables take 30 KiB. Stops who is no QEMU from filling memory.
_MAX_LINE = 4 * 1024 * 1024
_MOST = Most(values=1 << 17, containers=1 << 14, names=1 << 15)
_CHUNK = 64 * 1024


class CommandError(QmpError):
    """QEMU's error to a command."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """QEMU's class of errors, such as "CommandNotFound"."""


class Qmp:
    """A connection to QEMU's monitor. Methods raise QmpError, and are not for two threads."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Connects and greets.

        Args:
            path: QEMU's socket, as in -qmp unix:PATH,server=on.
            timeout: how long all of it may take, in seconds, until it is closed.
        """
        self._path = path
        self._deadline = time.monotonic() + timeout
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnects; QEMU runs on."""
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Runs a command and gives what it returns.

        Raises:
            CommandError: QEMU refuses it.
        """
        self._send({"execute": command, "arguments": arguments})
        answer = self._message()
        if "return" in answer:
            return answer["return"]
        match answer.get("error"):
            case {"class": str(kind), "desc": str(message)}:
                raise CommandError(kind, f"{command}: {message}")
        raise QmpError(f"{self._path}: expected an answer of QMP's, got another JSON object")

    def _connect(self) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.connect(str(self._path))
        except (OSError, ValueError) as error:
            advice = f"; {who_may_use(self._path)}" if isinstance(error, PermissionError) else ""
            raise QmpError(
                f"{self._path}: expected QEMU's QMP socket: {why(error)}{advice}"
            ) from error
        if "QMP" not in self._message():
            raise QmpError(f"{self._path}: expected QMP's greeting, got another JSON object")
        self.execute("qmp_capabilities")

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{self._path}: {why(error)}") from error

    def _message(self) -> dict[str, Any]:
        """The next one that is no event."""
        while True:
            try:
                message = strict_json.loads(self._line(), _MOST)
            except strict_json.NotJson as error:
                raise QmpError(f"{self._path}: this is not QMP: {error}") from error
            if not isinstance(message, dict):
                raise QmpError(f"{self._path}: this is not QMP: expected a JSON object")
            if "event" not in message:
                return message

    def _line(self) -> bytes:
        seen = 0
        while (end := self._received.find(b"\n", seen)) < 0:
            seen = len(self._received)
            if seen > _MAX_LINE:
                raise QmpError(f"{self._path}: this is not QMP: a line of over {_MAX_LINE} bytes")
            self._received += self._more()
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _more(self) -> bytes:
        try:
            self._socket.settimeout(self._left())
            more = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise QmpError(f"{self._path}: {why(error)}") from error
        if not more:
            raise QmpError(f"{self._path}: QEMU closed the connection")
        return more

    def _left(self) -> float:
        """The time that is left, in seconds, above 0."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> QmpError:
        return QmpError(
            f"{self._path}: no answer in time; QEMU serves one client of a monitor at a time, so "
            "another one (libvirt?) may have it"
        )
