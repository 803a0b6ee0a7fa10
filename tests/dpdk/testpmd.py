"""A testpmd whose network card is a vhost-user back end's, told what to do line by line."""

import asyncio
import os
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.waiting import GUARD

PROGRAM = "dpdk-testpmd"
RING_SIZE = 256
PACKETS = 2048
"""How many packets it has buffers for."""

# It may come amid the echo of a command.
_EVENT = re.compile(r"\nPort \d+: link state change event\n")


class Testpmd:
    """One that runs."""

    __test__ = False  # pytest takes it for a class of tests

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        """
        Args:
            process: its own; what it is told and what it says to that.
            log: where its libraries write.
        """
        self._process = process
        self._log = log
        self._said = ""
        self._reading = asyncio.create_task(self._read())
        self._more = asyncio.Event()

    async def tell(self, command: str) -> str:
        """Gives a command and returns what it says up to the next prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        # A line that it was given is said again, behind a prompt and what it has to tell.
        return await self.says(rf"{re.escape(command)}\r\n(.*?)(?=testpmd> )")

    async def says(self, pattern: str) -> str:
        """The first group of what it says next that looks so."""
        try:
            async with asyncio.timeout(GUARD):
                while not (found := re.search(pattern, self._said, re.S)):
                    assert not self._reading.done(), await self._ended()
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError as error:
            raise TimeoutError(f"expected {pattern!r}, it said {self._said!r}") from error
        self._said = self._said[found.end() :]
        return found[1]

    async def _ended(self) -> str:
        code, log = await self._process.wait(), self._log.read_text()
        return f"it has ended ({code}), it said {self._said!r} and {log!r}"

    async def quit(self) -> None:
        """Has it end as it should."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"quit\n")
        async with asyncio.timeout(GUARD):
            assert await self._process.wait() == 0, self._said

    async def kill(self) -> None:
        """Ends it as it is. May be called again."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading
        assert self._process.stdin is not None
        self._process.stdin.close()
        # What it was given and never read is lost with it.
        with suppress(OSError):
            await self._process.stdin.wait_closed()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while some := await self._process.stdout.read(4096):
            self._said = _EVENT.sub("", self._said + some.decode())
            self._more.set()
        self._more.set()


@asynccontextmanager
async def run_testpmd(
    socket: Path, *, pairs: int = 1, card: str = "", options: tuple[str, ...] = ()
) -> AsyncIterator[Testpmd]:
    """Runs one for the time of the context.

    Args:
        socket: of the back end, or its own with `server=1`.
        pairs: how many queue pairs the card has.
        card: more of the card's parameters.
        options: more of testpmd's.
    """
    virtual = f"net_virtio_user0,path={socket},queues={pairs},queue_size={RING_SIZE}{card}"
    log = socket.with_name(f"{socket.name}-testpmd.log")
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "stdbuf", "-o0", PROGRAM),
            *("-l", "0-1", "--no-telemetry"),
            *("--no-huge", "--no-pci", "-m", "64", "--single-file-segments", f"--vdev={virtual}"),
            # Else `start` throws away what stands in the receive rings.
            *(
                "--",
                "-i",
                "--no-flush-rx",
                f"--total-num-mbufs={PACKETS}",
                f"--rxq={pairs}",
                f"--txq={pairs}",
            ),
            *options,
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            # DPDK writes to a back end that is gone without MSG_NOSIGNAL, and goes on if it may.
            restore_signals=False,
            # Else two that run at once share a folder of the machine's.
            env={**os.environ, "RUNTIME_DIRECTORY": str(socket.parent)},
        )
    running = Testpmd(process, log)
    try:
        yield running
    finally:
        await running.kill()
