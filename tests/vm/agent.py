"""Runs in the virtual machine: does what the tests ask, over a virtio-serial port.

One JSON object a line, in both directions. A request has an id, a verb and the verb's arguments;
its reply has the id and either a result or an error. Requests are served side by side, so that a
test may do something while something else is under way.

To import one of our programs takes this machine some five seconds, so those that tests start most
are forked from a process that has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.forker import Child, Forker, forker_of
from tests.support.waiting import until
from vdpad.client import Client, Refused, Unreachable

PORT_NAME = "vdpad.agent"
SOCKET_TIMEOUT = 100.0
EVERY = 0.02
LONGEST_RUN = 600.0

FORKED = {
    "vdpad.cli.vdpad": ("vdpad.cli.vdpad",),
    "vdpad.cli.vdpactl": ("vdpad.cli.vdpactl", "vdpad.cli.provisioning", "vdpad.cli.selftest"),
    "tests.vm.steps": ("tests.vm.steps.__main__",),
}
"""The module that Python runs and what it imports later, by what stands behind its -m."""

Verb = Callable[..., Awaitable[Any]]


def find_port() -> Path:
    """The device node of the tests' serial port."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == PORT_NAME:
            return Path("/dev") / name.parent.name
    raise SystemExit(f"expected a serial port named {PORT_NAME}, found none")


def forker_for(argv: list[str]) -> Forker | None:
    """The forker of the module that these words have Python run, where there is one for it."""
    python, option, module, *_ = *argv[:3], "", "", ""
    forked = (python, option) == (sys.executable, "-m") and module in FORKED
    return forker_of(*FORKED[module]) if forked else None


class Agent:
    """What can be asked."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes] | Child] = {}
        self.verbs: dict[str, Verb] = {
            "run": self.run,
            "spawn": self.spawn,
            "kill": self.kill,
            "wait": self.wait,
            "read": self.read,
            "wait_for": self.wait_for,
            "wait_until_gone": self.wait_until_gone,
            "write": self.write,
            "call": self.call,
            "call_and_kill": self.call_and_kill,
        }

    async def run(self, argv: list[str], stdin: str = "") -> dict[str, Any]:
        """Runs a program to its end."""
        given = stdin.encode()

        def to_its_end() -> subprocess.CompletedProcess[bytes]:
            if (own := forker_for(argv)) is not None:
                return own.run(*argv[3:], stdin=given, timeout=LONGEST_RUN)
            return subprocess.run(
                argv, input=given, capture_output=True, timeout=LONGEST_RUN, check=False
            )

        done = await asyncio.to_thread(to_its_end)
        return {"code": done.returncode, "out": done.stdout.decode(), "err": done.stderr.decode()}

    async def spawn(self, argv: list[str], stderr: str, memlock: int | None = None) -> int:
        """Starts a program; its pid.

        Args:
            argv: the program and its arguments.
            stderr: the file that takes what it says.
            memlock: its RLIMIT_MEMLOCK in bytes.
        """

        def limit() -> None:
            if memlock is not None:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))

        def begun() -> subprocess.Popen[bytes] | Child:
            with open(stderr, "ab") as errors:
                if memlock is None and (own := forker_for(argv)) is not None:
                    return own.start(*argv[3:], stdout=errors, stderr=errors)
                return subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, preexec_fn=limit
                )

        child = await asyncio.to_thread(begun)
        self._children[child.pid] = child
        return child.pid

    async def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a program that was spawned."""
        self._children[pid].send_signal(number)

    async def wait(self, pid: int) -> int:
        """How a spawned program ended."""
        return await asyncio.to_thread(self._children.pop(pid).wait)

    async def read(self, path: str) -> str:
        """A file."""
        return await asyncio.to_thread(Path(path).read_text)

    async def wait_for(self, path: str, text: str) -> None:
        """Returns when this text stands in a file."""
        await until(lambda: text in Path(path).read_text(), every=EVERY)

    async def wait_until_gone(self, path: str) -> None:
        """Returns when there is nothing under this path."""
        await until(lambda: not Path(path).exists(), every=EVERY)

    async def write(self, path: str, text: str) -> None:
        """Writes a file; one of the kernel's may sleep, so a thread does it."""
        await asyncio.to_thread(Path(path).write_text, text)

    async def call(
        self, socket: str, method: str, params: dict[str, Any], seconds: float = SOCKET_TIMEOUT
    ) -> Any:
        """Asks the daemon, and waits so long for its reply."""
        async with Client(Path(socket), seconds) as client:
            try:
                return {"result": await client.call(method, **params)}
            except Refused as error:
                return {"refused": {"message": str(error), **error.data}}
            except Unreachable as error:
                return {"unreachable": str(error)}

    async def call_and_kill(
        self, socket: str, method: str, params: dict[str, Any], pid: int, after: float
    ) -> float | None:
        """Asks the daemon, and sends it SIGKILL unless it has answered within so many seconds.

        Returns:
            how many seconds the answer took, or None where there was none.
        """
        async with Client(Path(socket), SOCKET_TIMEOUT) as client:
            begun = time.monotonic()
            call = asyncio.ensure_future(client.call(method, **params))
            answered, _ = await asyncio.wait([call], timeout=after)
            if answered:
                return time.monotonic() - begun
            os.kill(pid, signal.SIGKILL)
            call.cancel()
            await asyncio.wait([call])
            return None


async def serve(agent: Agent, reader: asyncio.StreamReader, fd: int) -> None:
    """Serves until the tests close the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(line: bytes) -> None:
        request = json.loads(line)
        try:
            verb = agent.verbs[request["verb"]]
            reply = {"id": request["id"], "result": await verb(**request["arguments"])}
        except Exception as error:
            reply = {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
        data = json.dumps(reply).encode() + b"\n"
        os.set_blocking(fd, True)
        while data:
            data = data[os.write(fd, data) :]
        os.set_blocking(fd, False)

    while line := await reader.readline():
        task = asyncio.get_running_loop().create_task(answer(line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main() -> None:
    """Opens the port, says hello, and serves."""
    fd = os.open(find_port(), os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(Exception):
        tty.setraw(fd)
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    # One for each child that is waited for, and some.
    loop.set_default_executor(ThreadPoolExecutor(32))
    with os.fdopen(fd, "rb", buffering=0, closefd=False) as port:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), port)
        os.write(fd, b'{"id": 0, "result": "ready"}\n')
        await serve(Agent(), reader, fd)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
