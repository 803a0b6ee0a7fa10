# How qtest works
#
# QEMU's qtest server takes one command a line and does to the machine what a guest's CPU would:
# port and memory accesses. It answers every command with exactly one line, in order ("OK ..." or
# "FAIL ..."), so commands may be pipelined: the oldest future that waits belongs to the next
# answer. Between answers stand "IRQ raise N" and "IRQ lower N", which answer nothing: they are
# told to a callback as they come.
#
# Source: QEMU's documentation of the protocol, docs/devel/qtest.rst.
"""An asyncio client of QEMU's qtest socket."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

IrqCallback = Callable[[int, bool], None]

BLOCK_BYTES = 64 * 1024
# A block comes back as two hex digits a byte, after "OK 0x".
LINE_LIMIT = 4 * BLOCK_BYTES


class QtestError(Exception):
    """QEMU refused a qtest command."""


class Qtest:
    """One qtest connection. Addresses are guest-physical; integers are in the guest's byte order.

    Every method raises QtestError where QEMU refuses the command, ConnectionError where it is gone.
    A cancelled call was still sent, and its answer is dropped when it comes.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._on_irq: IrqCallback | None = None
        self._lost = False
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def over(cls, connection: socket.socket) -> Qtest:
        """Speak over a connected stream socket, which belongs to this object from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_LIMIT)
        return cls(reader, writer)

    async def close(self) -> None:
        """Close the connection. What still waits for an answer gets a ConnectionError."""
        self._writer.close()
        self._listener.cancel()
        await asyncio.wait([self._listener])
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    def send(self, command: str) -> asyncio.Future[str]:
        """Send one command at once, and return a future of the answer's text behind "OK".

        Usable from a callback; the other methods await what this returns.
        """
        answer = asyncio.get_running_loop().create_future()
        if self._lost:
            answer.set_exception(ConnectionError("qtest: the connection is lost"))
            return answer
        self._waiting.append(answer)
        self._writer.write(command.encode() + b"\n")
        return answer

    async def outb(self, port: int, value: int) -> None:
        """Write 8 bits to an I/O port."""
        await self.send(f"outb {port:#x} {value:#x}")

    async def outw(self, port: int, value: int) -> None:
        """Write 16 bits to an I/O port."""
        await self.send(f"outw {port:#x} {value:#x}")

    async def outl(self, port: int, value: int) -> None:
        """Write 32 bits to an I/O port."""
        await self.send(f"outl {port:#x} {value:#x}")

    async def inb(self, port: int) -> int:
        """Read 8 bits from an I/O port."""
        return int(await self.send(f"inb {port:#x}"), 16)

    async def inw(self, port: int) -> int:
        """Read 16 bits from an I/O port."""
        return int(await self.send(f"inw {port:#x}"), 16)

    async def inl(self, port: int) -> int:
        """Read 32 bits from an I/O port."""
        return int(await self.send(f"inl {port:#x}"), 16)

    async def writeb(self, address: int, value: int) -> None:
        """Write 8 bits to memory."""
        await self.send(f"writeb {address:#x} {value:#x}")

    async def writew(self, address: int, value: int) -> None:
        """Write 16 bits to memory."""
        await self.send(f"writew {address:#x} {value:#x}")

    async def writel(self, address: int, value: int) -> None:
        """Write 32 bits to memory."""
        await self.send(f"writel {address:#x} {value:#x}")

    async def writeq(self, address: int, value: int) -> None:
        """Write 64 bits to memory."""
        await self.send(f"writeq {address:#x} {value:#x}")

    async def readb(self, address: int) -> int:
        """Read 8 bits from memory."""
        return int(await self.send(f"readb {address:#x}"), 16)

    async def readw(self, address: int) -> int:
        """Read 16 bits from memory."""
        return int(await self.send(f"readw {address:#x}"), 16)

    async def readl(self, address: int) -> int:
        """Read 32 bits from memory."""
        return int(await self.send(f"readl {address:#x}"), 16)

    async def readq(self, address: int) -> int:
        """Read 64 bits from memory."""
        return int(await self.send(f"readq {address:#x}"), 16)

    async def read(self, address: int, size: int) -> bytes:
        """Read `size` bytes of memory, a block at a time (so not atomically)."""
        return b"".join(
            [
                await self._read_block(at, min(BLOCK_BYTES, address + size - at))
                for at in range(address, address + size, BLOCK_BYTES)
            ]
        )

    async def write(self, address: int, data: bytes) -> None:
        """Write bytes to memory, a block at a time (so not atomically)."""
        for start in range(0, len(data), BLOCK_BYTES):
            block = data[start : start + BLOCK_BYTES]
            await self.send(f"write {address + start:#x} {len(block):#x} 0x{block.hex()}")

    async def irq_intercept_in(self, device: str, on_irq: IrqCallback) -> None:
        """Tell `on_irq(line, raised)` each change of the named device's input lines.

        They no longer reach the device itself. QEMU takes one such call in its life.
        """
        self._on_irq = on_irq
        await self.send(f"irq_intercept_in {device}")

    async def _read_block(self, address: int, size: int) -> bytes:
        text = await self.send(f"read {address:#x} {size:#x}")
        return bytes.fromhex(text.removeprefix("0x"))

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._heard(line.decode().rstrip("\n"))
        except ConnectionError:
            pass
        finally:
            self._lose()

    def _heard(self, line: str) -> None:
        if line.startswith("IRQ "):
            self._heard_irq(line)
            return
        answer = self._waiting.popleft()
        if answer.done():
            return
        word, _, rest = line.partition(" ")
        if word == "OK":
            answer.set_result(rest)
        else:
            answer.set_exception(QtestError(line))

    def _heard_irq(self, line: str) -> None:
        _, direction, number = line.split()
        if self._on_irq is not None:
            self._on_irq(int(number), direction == "raise")

    def _lose(self) -> None:
        self._lost = True
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(ConnectionError("qtest: QEMU closed the connection"))
