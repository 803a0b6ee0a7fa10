"""A daemon that other hosts may ask, and an independent client on one of them.

The client seals with the `cryptography` package's Fernet, as docs/api.md says, and uses nothing of
vdpad's sealing.
"""

import asyncio
import itertools
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from cryptography.fernet import Fernet

from tests.daemon.support import Json, checked_reply, request
from tests.support.waiting import GUARD
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.service.endpoints.udp import UdpEndpoint
from vdpad.wire.admitted import MAX_ADMITTED, begin, size_of

KEY, OLD_KEY, OTHER_KEY = (Fernet.generate_key() for _ in range(3))

# docs/operating.md: what a sealed datagram takes.
MAX_TEXT = 49055


def key_file(folder: Path, *keys: bytes) -> Path:
    """A key file; by default with KEY and OLD_KEY."""
    path = folder / "keys"
    path.write_bytes(b"\n".join(keys or (KEY, OLD_KEY)) + b"\n")
    path.chmod(0o600)
    return path


def known_for_long(directory: Path) -> Path:
    """A directory of records where daemons have remembered what they let in since the host is up.

    Without it a daemon lets nobody in for its first seconds.
    """
    memory = bytearray(size_of(MAX_ADMITTED))
    begin(memoryview(memory), 0)
    directory.mkdir(0o700)
    (directory / "requests-from-other-hosts").write_bytes(memory)
    return directory


@asynccontextmanager
async def serving_udp(
    folder: Path, *, listen: str = "127.0.0.1:0", ttl_s: int = 30, **settings: Any
) -> AsyncIterator[UdpEndpoint]:
    """A daemon in the running loop; gives its endpoint for other hosts."""
    udp = {"listen": listen, "key_file": str(key_file(folder)), "ttl_s": ttl_s}
    given = {"socket": folder / "vdpad.sock", "udp": udp, **settings}
    with tempfile.TemporaryDirectory() as elsewhere:
        records = {"directory": known_for_long(Path(elsewhere, "records"))}
        service = Service(Settings.model_validate({"records": records, **given}))
        await service.start()
        try:
            assert service.udp is not None
            yield service.udp
        finally:
            async with asyncio.timeout(GUARD):
                await service.stop()


class Remote:
    """A socket that asks from another host."""

    def __init__(self, address: tuple[str, int], key: bytes = KEY) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(address)
        self.fernet = Fernet(key)
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def seal(self, text: bytes) -> bytes:
        """A token."""
        return self.fernet.encrypt(text)

    def send(self, text: bytes) -> bytes:
        """Seals and sends, and gives what was sent."""
        token = self.seal(text)
        self.socket.send(token)
        return token

    async def receive_token(self) -> bytes:
        """The next datagram, as it came."""
        async with asyncio.timeout(GUARD):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65536)

    async def receive(self) -> Json:
        """The next reply, whosever it is."""
        text = self.fernet.decrypt(await self.receive_token())
        assert len(text) <= MAX_TEXT
        return checked_reply(text)

    def nothing_came(self) -> bool:
        """Whether no datagram waits to be read."""
        try:
            self.socket.recv(65536)
        except BlockingIOError:
            return True
        return False

    async def call(self, method: str, **params: Any) -> Json:
        """Asks, and gives the whole reply; no other may have come before it."""
        request_id = next(self._ids)
        self.send(request(method, request_id, **params))
        reply = await self.receive()
        assert reply["id"] == request_id
        return reply

    async def result(self, method: str, **params: Any) -> Any:
        """Asks, and gives the result."""
        reply = await self.call(method, **params)
        assert "result" in reply, reply
        return reply["result"]

    async def error(self, method: str, **params: Any) -> Json:
        """Asks, and gives the error."""
        reply = await self.call(method, **params)
        assert "error" in reply, reply
        error: Json = reply["error"]
        return error
