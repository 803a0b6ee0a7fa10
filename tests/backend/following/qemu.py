"""A QMP monitor of a QEMU that tests make up: its cards' filters, and what it tells of them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.rx_filter import card

GREETING = {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": ["oob"]}}

Json = dict[str, Any]


class Qemu:
    """It serves one client after the other, and tells of a change once until it is asked."""

    def __init__(self) -> None:
        self.cards: list[Json] = [card()]
        self.netdevs: dict[str, str] = {}
        self.queries = 0
        self.connections = 0
        self.answers = True
        self._armed = True
        self._writer: asyncio.StreamWriter | None = None

    def now(self, **more: Any) -> None:
        """Its first card has another filter from now on."""
        self.cards[0] |= {key.replace("_", "-"): value for key, value in more.items()}
        if self._armed and self._writer is not None:
            self._armed = False
            self.say({"event": "NIC_RX_FILTER_CHANGED", "timestamp": {}, "data": {"path": "/"}})

    def say(self, *messages: object) -> None:
        """To its client."""
        assert self._writer is not None
        for each in messages:
            self.say_bytes(json.dumps(each).encode() + b"\r\n")

    def say_bytes(self, raw: bytes) -> None:
        """To its client, as it is."""
        assert self._writer is not None
        self._writer.write(raw)

    def hang_up(self) -> None:
        """On its client."""
        assert self._writer is not None
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client until it goes."""
        self._writer = writer
        self.connections += 1
        with suppress(OSError):
            self.say(GREETING)
            async for asked in _messages(reader):
                self._answer(asked)
        writer.close()

    def _answer(self, asked: Json) -> None:
        if not self.answers:
            return
        answer = {"id": asked["id"]} if "id" in asked else {}
        try:
            self.say(answer | {"return": self._result(asked)})
        except LookupError as error:
            refused = {"class": "GenericError", "desc": f"expected no {error}"}
            self.say(answer | {"error": refused})

    def _result(self, asked: Json) -> object:
        arguments = asked.get("arguments", {})
        match asked["execute"]:
            case "qmp_capabilities":
                return {}
            case "query-rx-filter":
                self.queries += 1
                self._armed = True
                wanted = arguments.get("name")
                found = [each for each in self.cards if wanted in (None, each["name"])]
                if wanted is not None and not found:
                    raise LookupError(f"invalid net client name: {wanted}")
                return found
            case "qom-get":
                return self.netdevs[arguments["path"]]
        raise LookupError(asked["execute"])


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Json]:
    """What a client asks; nothing need stand between."""
    text, decoder = "", json.JSONDecoder()
    while more := await reader.read(1 << 16):
        text = (text + more.decode()).lstrip()
        while text:
            try:
                message, end = decoder.raw_decode(text)
            except ValueError:
                break
            yield message
            text = text[end:].lstrip()


@asynccontextmanager
async def listening(
    path: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """A monitor at this path, for the time of the context."""
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        os.unlink(path)
