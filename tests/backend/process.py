"""vdpad-vhost-user as a process of its own, on its software device."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any, Self

from tests.backend.vmm import PLAIN, Vmm
from tests.support.daemon import ROOT
from tests.support.forker import Child, forker_of
from tests.support.guest import Guest
from tests.support.mounts import SmallDisk
from tests.support.namespaces import Namespace, bridged_taps, wait_until_up
from tests.support.waiting import GUARD, wait_until
from tests.vhost_user.front_end import FrontEnd
from vdpad.backend.control.varlink import INTERFACE
from vdpad.client import Client
from vdpad.virtio.features import Feature

MODULE = "vdpad.cli.vdpad_vhost_user"
PROGRAM = (sys.executable, "-m", MODULE)


class BackEndProcess:
    """One, in a folder with its sockets, its state and its log."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        software: str = "loop",
        device: Sequence[str] = (),
        within: Namespace | None = None,
        disk: SmallDisk | None = None,
        front_ends: tuple[str, ...] = (),
        program: Sequence[str] | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
    ) -> None:
        """Starts it; `ready` tells when it listens.

        Args:
            folder: with its sockets, its state and its log.
            options: more of its own.
            software: the kind of its device.
            device: the options of another device, instead of a software one.
            within: the network namespace that it runs in.
            disk: whose mounts it has.
            front_ends: where they come from, if not by its socket in the folder.
            program: that is the back end; by default it is forked.
            stdin: its standard input.
        """
        self.folder = folder
        self.front_end = folder / "front-end"
        self.control = folder / "control"
        self.varlink = folder / "io.vdpad"
        self.state = folder / "state"
        self._log = folder / "log"
        self._within = within
        where = front_ends or ("--socket-path", str(self.front_end))
        places = ("--control", str(self.control), "--varlink", str(self.varlink))
        kept = ("--state-directory", str(self.state), "--name", "net0")
        on = device or (f"--software={software}",)
        arguments = [*on, *where, *places, *kept, *options]
        with self._log.open("wb") as log:
            self.process: Child | subprocess.Popen[bytes]
            holder = within or disk
            if program is None:
                pid = None if holder is None else holder.pid
                forker = forker_of(MODULE)
                self.process = forker.start(*arguments, stdin=stdin, stderr=log, within=pid)
                return
            assert disk is None
            command = [*program, *arguments]
            self.process = subprocess.Popen(
                command if within is None else within.command(*command),
                stdin=stdin,
                stderr=log,
                cwd=ROOT,
            )

    def ready(self) -> Self:
        """Returns when front ends can connect."""
        wait_until(lambda: self._is_there(), said=self.log)
        return self

    def _is_there(self) -> bool:
        assert self.process.poll() is None, self.log()
        return len(self.events("listening")) == 2

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What it has logged of these events."""
        events = (json.loads(line) for line in self.log().splitlines())
        return [event for event in events if event["event"] in names]

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(GUARD)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it has one."""
        try:
            return self.process.wait(GUARD)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    async def ask(self, method: str, **params: Any) -> Any:
        """By datagram; over a connection where it runs in another network namespace.

        Who asks by datagram has a name of the kernel's choice, in his own namespace only.
        """
        path = self.control if self._within is None else self.varlink
        async with Client(path, interface=INTERFACE) as client:
            return await client.call(method, **params)

    @asynccontextmanager
    async def vmm(self, guest: Guest | None = None) -> AsyncIterator[Vmm]:
        """A VMM that is connected until the end of the context; its guest stays if it is given."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.front_end))
        own = guest or new_guest()
        front_end = FrontEnd(connection)
        try:
            yield Vmm(own, front_end, PLAIN)
        finally:
            front_end.close()
            if guest is None:
                own.close()


def new_guest() -> Guest:
    """One with four queue pairs and a control queue."""
    return Guest(9, event_idx=Feature.RING_EVENT_IDX in PLAIN)


@asynccontextmanager
async def running(folder: Path, *options: str, **more: Any) -> AsyncIterator[BackEndProcess]:
    """A back end that listens, and is told to end at the end; all as of BackEndProcess."""
    process = BackEndProcess(folder, *options, **more)
    try:
        yield await asyncio.to_thread(process.ready)
    finally:
        await asyncio.to_thread(process.stop)


@asynccontextmanager
async def joined(folder: Path, *options: str) -> AsyncIterator[tuple[BackEndProcess, ...]]:
    """Two back ends whose guests have a network in common, and nobody else in it.

    Each is on a TAP interface of a network namespace, and a bridge joins the two.
    """
    with bridged_taps("tap0", "tap1") as within:
        async with AsyncExitStack() as stack:
            both = []
            for name in ("tap0", "tap1"):
                (folder / name).mkdir()
                started = running(folder / name, *options, software=f"tap:{name}", within=within)
                both.append(await stack.enter_async_context(started))
            await asyncio.to_thread(wait_until_up, within, "tap0", "tap1", "br0")
            yield tuple(both)
