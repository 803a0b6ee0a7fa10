"""An independent Varlink client: a connected socket, JSON and NUL bytes, and nothing of vdpad's."""

import array
import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import GUARD

Json = dict[str, Any]


class VarlinkCaller:
    """A connection that asks."""

    def __init__(self, path: Path, interface: str = "io.vdpad.Daemon") -> None:
        """Connects.

        Args:
            path: the service's socket.
            interface: that methods are of.
        """
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self._interface = interface
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Sends these bytes; the descriptors ride on the first of them."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(GUARD):
            if fds:
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                data = data[self.socket.sendmsg([data], control) :]
            await loop.sock_sendall(self.socket, data)

    async def say(
        self, method: str, fds: Sequence[int] = (), /, *flags: str, **parameters: Any
    ) -> None:
        """Sends a call, with these flags set."""
        await self.send(call(f"{self._interface}.{method}", *flags, **parameters), fds)

    async def reply(self) -> Json:
        """The next reply.

        Raises:
            EOFError: the service has closed.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(GUARD):
            while b"\0" not in self._unread:
                try:
                    piece = await loop.sock_recv(self.socket, 1 << 20)
                except ConnectionResetError:
                    piece = b""  # it had not read all that was sent
                if not piece:
                    raise EOFError(self._unread)
                self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        reply: Json = json.loads(message)
        assert reply.keys() <= {"parameters", "error", "continues"}
        return reply

    async def call(self, method: str, fds: Sequence[int] = (), /, **parameters: Any) -> Json:
        """Asks, and gives the reply's parameters; it is no error and the only one."""
        await self.say(method, fds, **parameters)
        reply = await self.reply()
        assert reply.keys() == {"parameters"}, reply
        result: Json = reply["parameters"]
        return result

    async def error(
        self, method: str, fds: Sequence[int] = (), /, **parameters: Any
    ) -> tuple[str, Json]:
        """Asks, and gives the error's name and parameters."""
        await self.say(method, fds, **parameters)
        reply = await self.reply()
        assert reply.keys() == {"parameters", "error"}, reply
        return reply["error"], reply["parameters"]


def call(method: str, *flags: str, **parameters: Any) -> bytes:
    """A call as a message, with its NUL byte."""
    whole = {"method": method, "parameters": parameters, **dict.fromkeys(flags, True)}
    return json.dumps(whole).encode() + b"\0"
