# What it exchanges
#
# All that it sends the guest sends back, so that each byte goes both ways through the guest's card
# and its memory: over connections, two of the partner's making and one of the guest's, and in
# datagrams (exchanges.py). On demand another connection is poured full of data that the guest's end
# leaves alone for a while; and the partner is silent, so that it has the guest send nothing.
"""A guest's partner on its network, which exchanges data with it all the time and looks at it all.

    python -m tests.guest.partner ADDRESS MAC INTERFACE

has the guest's addresses and the partner's own interface. Each line of its standard input is a name
of Partner's methods, and is answered by a line of JSON.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from tests.support.daemon import ROOT
from tests.support.namespaces import Namespace
from tests.support.waiting import GUARD, until

from .exchanges import Announcements, Connection, Datagrams, Gate

ECHO_PORT, POUR_PORT, OWN_PORT = 5000, 5001, 5002
"""Two of the guest's, and the partner's."""
FLOOD = 2 << 20
"""Bytes."""

_CONNECTIONS = 2


@dataclass(frozen=True)
class Told:
    """What the partner has seen since it began."""

    blocks: list[int]
    """That came back on each connection."""
    datagrams: int
    """That were sent."""
    lost: int
    """Datagrams that have not come back, or not yet."""
    doubled: int
    """Datagrams that came back once more."""
    faults: list[str]
    """What came back and was not what was sent; connections that ended."""
    announcements: int
    """Frames that say where the guest is, and nothing else."""


@dataclass(frozen=True)
class Gaps:
    """The longest times without anything, in ms."""

    datagrams: int
    connection: int
    """Of one connection's blocks; when lost segments are sent again is for TCP to say."""


class _Program:
    """Its methods are Partner's."""

    def __init__(self, address: str, mac: str, interface: str) -> None:
        self._address = address
        self._gate = Gate()
        self._connections: list[Connection] = []
        self._datagrams = Datagrams(address, self._gate)
        self._announcements = Announcements(mac, interface)
        self._tasks: list[asyncio.Task[None]] = []
        self._poured: tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes] | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while name := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            print(json.dumps(await getattr(self, name)()), flush=True)

    async def begin(self) -> None:
        await asyncio.start_server(self._exchange, port=OWN_PORT)
        for _ in range(_CONNECTIONS):
            ends = await self._connected(ECHO_PORT)
            self._tasks.append(asyncio.create_task(self._exchange(*ends)))
        self._tasks.append(asyncio.create_task(self._datagrams.exchange()))
        self._gate.open()

    async def tell(self) -> dict[str, Any]:
        faults = [fault for each in self._connections for fault in each.faults]
        told = Told(
            [each.blocks for each in self._connections],
            self._datagrams.sent,
            len(self._datagrams.missing),
            self._datagrams.doubled,
            faults + self._datagrams.faults,
            self._announcements.number,
        )
        return asdict(told)

    async def gaps(self) -> dict[str, Any]:
        longest = max(each.pulse.longest() for each in self._connections)
        gaps = Gaps(self._datagrams.pulse.longest(), longest)
        self._begin_pulses()
        return asdict(gaps)

    async def be_silent(self) -> None:
        await self._gate.close()

    async def go_on(self) -> None:
        self._begin_pulses()
        self._gate.open()

    async def pour(self) -> None:
        reader, writer = await self._connected(POUR_PORT)
        flood = Random(POUR_PORT).randbytes(FLOOD)
        self._poured = reader, writer, flood
        writer.write(flood)
        await until(lambda: not _outstanding(writer))

    async def came_whole(self) -> bool:
        assert self._poured is not None
        reader, _, flood = self._poured
        try:
            async with asyncio.timeout(GUARD):
                return await reader.readexactly(len(flood)) == flood
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = Connection(len(self._connections), self._gate)
        self._connections.append(made)
        await made.exchange(reader, writer)

    async def _connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection(self._address, port)
            await asyncio.sleep(0.1)

    def _begin_pulses(self) -> None:
        self._datagrams.pulse.begin()
        for each in self._connections:
            each.pulse.begin()


def _outstanding(writer: asyncio.StreamWriter) -> int:
    """Bytes that the other end's kernel has not acknowledged."""
    number = array.array("i", [0])
    fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, number)
    return number[0] + writer.transport.get_write_buffer_size()


class Partner:
    """The program, which runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self) -> None:
        """Exchanges data from now on; returns once connections to the guest are there."""
        self._ask("begin")

    def tell(self) -> Told:
        """How far it is."""
        return Told(**self._ask("tell"))

    def gaps(self) -> Gaps:
        """The longest since it was asked last, or since it went on."""
        return Gaps(**self._ask("gaps"))

    def be_silent(self) -> None:
        """Returns once all connections are idle, and nothing is sent."""
        self._ask("be_silent")

    def go_on(self) -> None:
        """Ends that."""
        self._ask("go_on")

    def pour(self) -> None:
        """Returns once the guest's kernel has acknowledged the flood."""
        self._ask("pour")

    def came_whole(self) -> bool:
        """Whether the flood is back within a minute, and not a byte of it differs."""
        return bool(self._ask("came_whole"))

    def _ask(self, name: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(name, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "expected an answer of the guest's partner, it has ended"
        return json.loads(line)


@contextlib.contextmanager
def partner(within: Namespace, address: str, mac: str, interface: str) -> Iterator[Partner]:
    """One for the time of the context, in a namespace where it may ask for echoes."""
    program = (sys.executable, "-m", "tests.guest.partner", address, mac, interface)
    with subprocess.Popen(
        within.command(*program),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Partner(process)
        finally:
            process.kill()


async def _main(address: str, mac: str, interface: str) -> None:
    await _Program(address, mac, interface).run()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
