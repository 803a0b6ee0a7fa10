"""What a guest's partner exchanges with it: all that it sends comes back, and is held against that.

A *gate* stands before each exchange, so that all of them can be silent; a *pulse* beats when
something comes back, and knows the longest gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from random import Random
from time import monotonic
from typing import Any

from tests.support.waiting import until

BLOCK = 16000
"""Bytes."""

_BETWEEN_BLOCKS, _BETWEEN_DATAGRAMS = 0.05, 0.01
"""Seconds."""
_LARGEST_DATAGRAM = 1400
_ICMP = struct.Struct(">BBHHH")
_ECHO = 8
_ARP, _RARP = 0x0806, 0x8035


class Pulse:
    """Beats when something comes."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._last = monotonic()

    def beat(self) -> None:
        """Something has come."""
        now = monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def begin(self) -> None:
        """What was before does not count."""
        self._longest = 0.0
        self._last = monotonic()

    def longest(self) -> int:
        """The longest gap between two beats since it began, in ms."""
        return round(1000 * self._longest)


class Gate:
    """Open, or closed with nobody behind it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._behind = 0

    @contextlib.asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Once it is open."""
        await self._open.wait()
        self._behind += 1
        try:
            yield
        finally:
            self._behind -= 1

    def open(self) -> None:
        """Lets everybody pass."""
        self._open.set()

    async def close(self) -> None:
        """Returns once those that have passed are back.

        Raises:
            TimeoutError: they are not, however long they are waited for.
        """
        self._open.clear()
        await until(lambda: not self._behind)


class Connection:
    """Blocks that go there and back (TCP)."""

    def __init__(self, seed: int, gate: Gate) -> None:
        self.blocks = 0
        self.faults: list[str] = []
        self.pulse = Pulse()
        self._name = f"connection {seed}"
        self._random = Random(seed)
        self._gate = gate

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A block at a time, until the connection ends, which is a fault."""
        try:
            while True:
                async with self._gate.passed():
                    await self._one(reader, writer)
                await asyncio.sleep(_BETWEEN_BLOCKS)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.faults.append(f"{self._name} ended: {error!r}")

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        block = self._random.randbytes(BLOCK)
        writer.write(block)
        if await reader.readexactly(BLOCK) != block:
            self.faults.append(f"{self._name}: block {self.blocks} differs")
        self.blocks += 1
        self.pulse.beat()


class Datagrams(asyncio.DatagramProtocol):
    """Datagrams of all sizes, each with its number; the guest's kernel answers (ICMP echo)."""

    def __init__(self, address: str, gate: Gate) -> None:
        self.sent = 0
        self.missing: set[int] = set()
        """Those that have not come back."""
        self.doubled = 0
        self.faults: list[str] = []
        self.pulse = Pulse()
        self._address = address
        self._gate = gate

    async def exchange(self) -> None:
        """For ever."""
        request = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        request.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=request)
        while True:
            async with self._gate.passed():
                self.missing.add(self.sent)
                head = _ICMP.pack(_ECHO, 0, 0, 0, self.sent & 0xFFFF)
                transport.sendto(head + _payload(self.sent), (self._address, 0))
                self.sent += 1
            await asyncio.sleep(_BETWEEN_DATAGRAMS)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """An answer has come."""
        payload = data[_ICMP.size :]
        number = int.from_bytes(payload[:8])
        if number >= self.sent or payload != _payload(number):
            self.faults.append(f"datagram {number} differs")
        self.doubled += number not in self.missing
        self.missing.discard(number)
        self.pulse.beat()


def _payload(number: int) -> bytes:
    size = number * 37 % (_LARGEST_DATAGRAM + 1)
    return number.to_bytes(8) + Random(number).randbytes(size)


class Announcements:
    """By which the guest, or its VMM, tells switches where it is: ARP for its own address, RARP."""

    def __init__(self, mac: str, interface: str) -> None:
        self.number = 0
        self._mac = bytes.fromhex(mac.replace(":", ""))
        for protocol in (_ARP, _RARP):
            heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
            heard.bind((interface, protocol))
            heard.setblocking(False)
            asyncio.get_running_loop().add_reader(heard, self._hear, heard)

    def _hear(self, heard: socket.socket) -> None:
        frame = heard.recv(2048)
        is_rarp = frame[12:14] == _RARP.to_bytes(2)
        asks_for_itself = frame[28:32] == frame[38:42]
        self.number += frame[6:12] == self._mac and (is_rarp or asks_for_itself)
