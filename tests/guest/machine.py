# How the machine is run
#
# QEMU starts Debian's kernel (.ci/kernel) with an initramfs of our own and nothing else: whatever
# else the guest had mounted or open could keep it from being migrated. KVM is not used even where
# it is there, so that the machine is the same everywhere. One CPU: init.sh says why. Memory that is
# free is zero (init_on_free), which halves a stream.
#
# QMP and the guest's shell speak over socket pairs that QEMU inherits, and its taps live in a
# network namespace that ends with it, as in tests/qemu/process.py.
#
# A migration leaves the machine stopped but whole, so `stream` lets it run on: one boot serves many
# streams.
"""A Linux guest: boot it, have its shell run commands, migrate it away to look at the stream."""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tests.qemu import process
from tests.qemu.qmp import Qmp, QmpError
from tests.qemu.versions import SYSTEM, Version
from tests.support.waiting import GUARD, wait_until
from tests.vm import machine as vm

from .initramfs import BUSYBOX, PROGRAMS, initramfs, program

CONSOLE_SHOWN = 4000
MEMORY = "128M"


class Gone(Exception):
    """The guest does not answer; the text ends in what its console said."""


class Failed(Exception):
    """Commands in the guest ended with another code than 0."""


class Card(Protocol):
    """A network device of the guest. The n-th is its ethN, at slot 3 + n of bus 0."""

    def options(self, at: int) -> tuple[str, ...]:
        """QEMU's, for the `at`-th."""


@dataclass(frozen=True)
class Interface:
    """A card that is QEMU's own, on a tap."""

    properties: str
    """Of virtio-net-pci, separated by commas."""
    queue_pairs: int = 1
    """Of the tap."""

    def options(self, at: int) -> tuple[str, ...]:
        """QEMU's, for the `at`-th."""
        queues = f",queues={self.queue_pairs}" if self.queue_pairs > 1 else ""
        tap = f"tap,id=net{at},ifname=tap{at},script=no,downscript=no,vnet_hdr=on{queues}"
        card = f"virtio-net-pci,netdev=net{at},addr={slot(at)},romfile=,{self.properties}"
        return ("-netdev", tap, "-device", card)


def slot(at: int) -> int:
    """Where the `at`-th card is, on bus 0."""
    return 3 + at


NO_CONTROL_QUEUE = "ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_mac_addr=off,guest_announce=off"
"""QEMU would offer the others without the first, and Linux refuses a device that does. It takes
CTRL_GUEST_OFFLOADS without it."""

INTERFACES = (
    Interface("mac=52:54:00:00:00:0a,mq=on,vectors=10,rss=on,hash=on", queue_pairs=4),
    Interface("mac=52:54:00:00:00:0b,hash=on,packed=on,ctrl_vlan=off"),
    Interface(f"mac=52:54:00:00:00:0c,vectors=0,{NO_CONTROL_QUEUE},ctrl_guest_offloads=off"),
    Interface("mac=52:54:00:00:00:0d,guest_csum=off"),
    Interface(f"mac=52:54:00:00:00:0e,{NO_CONTROL_QUEUE}"),
)
"""One with everything; one that reports hashes, with neither RSS nor VLAN filter, and with packed
rings; one without a control queue and without MSI-X; and two with features that lack what the
specification requires with them, or their use."""


@functools.cache
def why_unavailable() -> str | None:
    """What keeps this host from running the guest, or None."""
    for name in (BUSYBOX, *PROGRAMS, "ldd"):
        if program(name) is None:
            return f"{name} is not installed"
    return process.why_unavailable() or vm.why_no_kernel()


class Guest:
    """A running guest. Its methods raise Gone where it does not answer."""

    def __init__(
        self,
        qemu: Version,
        pid: int,
        shell: socket.socket,
        qmp: Qmp,
        runner: asyncio.Runner,
        folder: Path,
    ) -> None:
        self.qemu = qemu
        self.pid = pid
        """QEMU's."""
        self._socket = shell
        self._shell = shell.makefile("rwb")
        self._qmp = qmp
        self._runner = runner
        self._folder = folder

    def run(self, *commands: str) -> str:
        """What these commands for its shell print, one after the other, each of a single line.

        Raises Failed unless they all end well; the first that does not is the last to run.
        """
        line = " && ".join(commands)
        self._shell.write(line.encode() + b"\n")
        self._shell.flush()
        code, said = self._reply()
        if code:
            raise Failed(f"{line!r} ended with {code}: {said}")
        return said

    def reboot(self) -> None:
        """Resets the machine, and returns when it has booted anew."""
        self.qmp("set-action", reboot="reset")  # in spite of -no-reboot
        self.qmp("system_reset")
        self.await_boot()

    @contextmanager
    def stream(self, *capabilities: str) -> Iterator[BinaryIO]:
        """Migrates the guest away, lets it run on here, and yields the stream, a file at its begin.

        Args:
            capabilities: of the migration, to be switched on for it. With mapped-ram QEMU writes
                the file itself, as it has to; otherwise it writes to a socket.

        Raises QmpError where QEMU knows no such capability or the migration fails, TimeoutError
        where a step of it takes longer than GUARD.
        """
        path, address = self._folder / "migration", self._folder / "listener"
        path.unlink(missing_ok=True)
        address.unlink(missing_ok=True)
        to_file = "mapped-ram" in capabilities
        self._switch(capabilities, True)
        try:
            self._runner.run(self._to_file(path) if to_file else self._to_socket(address, path))
            self.qmp("cont")
            with path.open("rb") as stream:
                yield stream
        finally:
            self._switch(capabilities, False)

    async def _to_file(self, path: Path) -> None:
        async with asyncio.timeout(GUARD):
            await self._qmp.migrate(f"file:{path}")

    async def _to_socket(self, address: Path, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(1)
            listener.settimeout(GUARD)
            async with asyncio.timeout(GUARD):
                # A thread takes 60 MB in a third of the time that the event loop needs for them.
                received = asyncio.to_thread(_receive, listener, path)
                await asyncio.gather(received, self._qmp.migrate_to_socket(address))

    def begin_to_move(self, other: Guest, **parameters: int) -> None:
        """Has the guest, which runs on, be sent to a machine that awaits one.

        Args:
            other: a machine of `awaited`.
            parameters: of the migration.
        """
        address = f"unix:{other._folder / 'listener'}"
        other.qmp("migrate-incoming", uri=address)
        self.bound_migration(**parameters)
        self.qmp("migrate", uri=address)

    def bound_migration(self, **parameters: int) -> None:
        """Changes parameters of the migration."""
        if parameters:
            self.qmp("migrate-set-parameters", **parameters)

    def migration(self) -> dict[str, Any]:
        """What QEMU tells of it. Raises QmpError where it fails."""
        told: dict[str, Any] = self.qmp("query-migrate")
        if told.get("status") in ("failed", "cancelled"):
            raise QmpError(f"migrate: {told}")
        return told

    def until_moved(self, other: Guest) -> dict[str, Any]:
        """Returns when the guest is at the other machine, where it stands still.

        Returns what QEMU tells of the migration: "downtime" is in ms.
        """
        wait_until(lambda: self.migration()["status"] == "completed", said=self.printed)
        wait_until(lambda: other.qmp("query-status")["status"] == "paused", said=other.printed)
        return self.migration()

    def printed(self) -> str:
        """What its console, and QEMU, have said."""
        return (self._folder / "console").read_text(errors="replace")

    def _switch(self, capabilities: Sequence[str], on: bool) -> None:
        states = [{"capability": each, "state": on} for each in capabilities]
        self.qmp("migrate-set-capabilities", capabilities=states)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What QEMU answers; an underscore in a key is a hyphen. Raises QmpError for an error."""
        return self._runner.run(self._qmp.execute(command, **arguments))

    def await_boot(self) -> None:
        """Returns when it has booted."""
        self._reply()

    def _reply(self) -> tuple[int, str]:
        try:
            code, length = map(int, self._shell.readline().split())
            return code, self._shell.read(length).decode()
        except (OSError, ValueError) as error:
            raise Gone(f"{error!r}; its console: {self.printed()[-CONSOLE_SHOWN:]}") from error


@contextmanager
def booted(
    cards: Sequence[Card] = INTERFACES, *, qemu: Version = SYSTEM, kind: str = "pc"
) -> Iterator[Guest]:
    """A guest for the time of the context.

    Args:
        cards: its network devices.
        qemu: that runs it.
        kind: of the machine.
    """
    with _machine(cards, qemu, kind) as guest:
        guest.await_boot()
        yield guest


@contextmanager
def awaited(cards: Sequence[Card], *, qemu: Version, kind: str) -> Iterator[Guest]:
    """A machine to which a guest can move, for the time of the context; as of `booted`.

    The guest stands still there until QMP's `cont`.
    """
    with _machine(cards, qemu, kind, "-incoming", "defer", "-S") as guest:
        yield guest


@contextmanager
def _machine(cards: Sequence[Card], qemu: Version, kind: str, *more: str) -> Iterator[Guest]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vdpad-guest-")))
        shell, its_shell = _socket_pair(stack)
        shell.settimeout(GUARD)
        qmp, its_qmp = _socket_pair(stack)
        inherited = (its_shell.fileno(), its_qmp.fileno())
        command = [*_command(folder, cards, qemu.program, kind, *inherited), *more]
        pid = _start(stack, command, inherited, folder)
        # With a copy of its ends here, QEMU's death would never end the streams.
        its_shell.close()
        its_qmp.close()
        runner = stack.enter_context(asyncio.Runner())
        client = runner.run(Qmp.over(qmp))
        stack.callback(lambda: runner.run(client.close()))
        yield Guest(qemu, pid, shell, client, runner, folder)


def _start(
    stack: ExitStack, command: Sequence[str], inherited: Collection[int], folder: Path
) -> int:
    with (folder / "console").open("wb") as console:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, pass_fds=inherited
        )
    stack.callback(child.wait)
    stack.callback(child.kill)
    return child.pid


def _command(
    folder: Path,
    cards: Sequence[Card],
    qemu: str,
    kind: str,
    shell: int,
    qmp: int,
) -> list[str]:
    kernel = vm.kernel()
    assert kernel is not None
    release = (kernel / "ready").read_text().strip()
    (folder / "initramfs").write_bytes(initramfs(kernel))
    return [
        *process.namespace(),
        *("setpriv", "--pdeathsig", "KILL", qemu),
        *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-accel", "tcg", "-machine", kind, "-m", MEMORY),
        *("-kernel", str(kernel / f"boot/vmlinuz-{release}"), "-initrd", f"{folder}/initramfs"),
        *("-append", f"console=ttyS0 quiet panic=-1 init_on_free=1 {vm.UNTIMED}"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=shell,fd={shell}", "-serial", "chardev:shell"),
        *("-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"),
        *(option for at, each in enumerate(cards) for option in each.options(at)),
    ]


def _receive(listener: socket.socket, path: Path) -> None:
    connection, _ = listener.accept()
    connection.settimeout(GUARD)
    with connection, connection.makefile("rb") as source, path.open("wb") as stream:
        shutil.copyfileobj(source, stream)


def _socket_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(its.close)
    return ours, its
