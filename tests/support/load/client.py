"""A client: a socket of its own, one request after the other, and a tally of what came."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.load.tally import Tally

Json = dict[str, Any]

# In seconds: an answer that takes longer is lost.
LOST_AFTER = 60.0

_REPLY_ROOM = 400 * 1024
_REMEMBERED = 8

# What a request may come to, beside what is expected, once the daemon is being stopped: it takes on
# nothing more, and cancels what was prepared.
_AT_THE_END = {"overloaded", "cancelled", "no-such-migration"}


class DaemonGone(Exception):
    """Nobody listens any more, or the daemon takes on nothing more."""


class Client:
    """One client. Bound to an address of the kernel's choice, and connected."""

    def __init__(self, path: Path, number: int, *, ending: bool) -> None:
        """
        Args:
            path: the daemon's socket.
            number: which of the clients it is; from 0.
            ending: the daemon will be stopped meanwhile, which may come in between.
        """
        self.number = number
        self.tally = Tally()
        self.remembered: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        """Migrations and outcomes of the last commits that are known to have ended."""
        self._ending = ending
        self._ids = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("")
        self._socket.connect(os.fspath(path))

    def close(self) -> None:
        """Leaves."""
        self._socket.close()

    def migration(self) -> str:
        """A name that nobody else uses."""
        return f"{os.getpid()}/{self.number}.{next(self._ids)}"

    async def expect(self, expected: str, method: str, **params: Any) -> Json:
        """Asks, judges the outcome by its name, and gives the result or the error's data.

        Raises:
            DaemonGone: it is stopped, where that is to come.
        """
        data = request(method, self._next_id(), **params)
        return await self.expect_of(expected, method, data)

    async def expect_of(self, expected: str, method: str, data: bytes) -> Json:
        """The same for a datagram, under a method's name or another."""
        started = time.perf_counter_ns()
        while is_refusal(reply := await self._answer_to(data)):
            self.tally.refused += 1
        self.tally.took(method, (time.perf_counter_ns() - started) // 1000)
        outcome = outcome_of(method, reply)
        if self._ending and outcome != expected and outcome in _AT_THE_END:
            raise DaemonGone
        self.tally.judge(method, expected, outcome, reply)
        self._remember(reply)
        return content_of(reply)

    async def at_once(self, requests: Sequence[tuple[str, Json]]) -> list[tuple[int, Json]]:
        """Sends all, and then gives each request's place and its reply as they come.

        One that was refused before it was looked at has no place that could be told: -1.

        Raises:
            DaemonGone: it is stopped, where that is to come; what was sent has been answered.
        """
        first = next(self._ids)
        sent = 0
        with contextlib.suppress(DaemonGone):
            for at, (method, params) in enumerate(requests):
                await self._send(request(method, f"{first}.{at}", **params))
                sent += 1
        replies = []
        for _ in range(sent):
            reply = await self._receive()
            place = -1 if reply["id"] is None else int(str(reply["id"]).partition(".")[2])
            replies.append((place, reply))
            self._remember(reply)
        if sent < len(requests) or (self._ending and any(is_stop(reply) for _, reply in replies)):
            raise DaemonGone
        return replies

    def _next_id(self) -> int:
        return next(self._ids)

    async def _answer_to(self, data: bytes) -> Json:
        await self._send(data)
        return await self._receive()

    async def _send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(LOST_AFTER):
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except (ConnectionError, FileNotFoundError):
            if self._ending:
                raise DaemonGone from None
            raise

    async def _receive(self) -> Json:
        async with asyncio.timeout(LOST_AFTER):
            data = await asyncio.get_running_loop().sock_recv(self._socket, _REPLY_ROOM)
        reply: Json = json.loads(data)
        return reply

    def _remember(self, reply: Json) -> None:
        """Keeps the end of a commit."""
        content = content_of(reply)
        report = content.get("report") or content
        if "commit_us" in report and "outcome" in report:
            end = (report["migration"], report["outcome"])
            if end not in self.remembered:
                self.remembered.append(end)
                if report["outcome"] == "restored":
                    self.tally.commit_us.append(report["commit_us"])


def request(method: str, request_id: object, /, **params: Any) -> bytes:
    """A request as a datagram."""
    whole = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return json.dumps(whole, separators=(",", ":")).encode()


def is_refusal(reply: Json) -> bool:
    """Whether it is `overloaded` that was said before the request was looked at."""
    return reply["id"] is None and outcome_of("", reply) == "overloaded"


def is_stop(reply: Json) -> bool:
    """Whether it is `overloaded` because the daemon is stopping."""
    return "error" in reply and "stopping" in reply["error"]["message"]


def content_of(reply: Json) -> Json:
    """The result, or the error's data."""
    content: Json = reply["result"] if "result" in reply else reply["error"]["data"]
    return content


def outcome_of(method: str, reply: Json) -> str:
    """A reply's outcome by its name: the error's kind, the report's outcome, the state, …"""
    if "error" in reply:
        return str(reply["error"]["data"]["kind"])
    result = reply["result"]
    if method == "check":
        return "compatible" if result["compatible"] else "incompatible"
    with contextlib.suppress(KeyError):
        return str(result["outcome"])
    return str(result.get("state", "ok"))
