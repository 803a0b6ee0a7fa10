"""A peer for the QMP client, which does what QEMU does or what nobody should."""

import array
import fcntl
import json
import socket
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
TIMEOUT = 5.0


def lines(*messages: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\r\n" for each in messages)


def _until_read(connection: socket.socket, wanted: bool) -> None:
    """Returns once the other side has taken all that was sent."""
    unread = array.array("i", [int(wanted)])
    while unread[0]:
        fcntl.ioctl(connection, termios.TIOCOUTQ, unread)
        time.sleep(0.001)


@contextmanager
def peer(
    folder: Path, *said: bytes, pieces: int = 0, hold: bool = False
) -> Iterator[tuple[Path, list[Any]]]:
    """Says one of these at once, and one after each line that it hears; then it hangs up or holds.

    With pieces, so many bytes are sent at once, and those before have been read by then.

    Gives its socket, and what it has heard.
    """
    path = folder / "qmp"
    heard: list[Any] = []
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with suppress(BrokenPipeError), connection, connection.makefile("rb") as stream:
            for at, each in enumerate(said):
                if at:
                    heard.append(json.loads(stream.readline()))
                for start in range(0, len(each), pieces or len(each) or 1):
                    connection.sendall(each[start : start + (pieces or len(each))])
                    _until_read(connection, bool(pieces))
            if hold:
                done.wait()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path, heard
        finally:
            done.set()
            thread.join(TIMEOUT)
            assert not thread.is_alive()
