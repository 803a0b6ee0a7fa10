# How QEMU is run
#
# `unshare -n` gives it a network namespace of its own, so that its tap disturbs nothing and goes
# when it goes; without root, `-r` adds a user namespace that may create one. `setpriv` has the
# kernel kill it if the test process dies. Both exec, so the process started here is QEMU itself.
# qtest and QMP speak over socket pairs that QEMU inherits: no path to wait for, and a QEMU that
# doesn't start is seen as the end of the stream.
#
# The guest's memory is a memfd sealed against shrinking. QEMU keeps it to itself, so it is opened
# anew through /proc/PID/fd.
"""A QEMU process with a paused machine: start, its memory, end."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.support.waiting import GUARD

from .layout import MEMORY_SIZE, MIB
from .options import Options
from .versions import PROGRAM

TUN = Path("/dev/net/tun")
MEMFD_NAME = "memory-backend-memfd"

F_GET_SEALS = 1034
F_SEAL_SHRINK = 0x0002


Command = Callable[[int, int], list[str]]
"""A command line, by the descriptors of the qtest and the QMP socket that QEMU inherits."""


class Unavailable(Exception):
    """This machine can't run the harness; the text says why. Fit for a skip."""


class StartError(Exception):
    """QEMU was started and didn't come up as it should; the text ends in what it printed."""


@dataclass(frozen=True)
class Process:
    """A running QEMU and this process's ends of its two sockets."""

    pid: int
    qtest: socket.socket
    qmp: socket.socket
    output: BinaryIO
    """What it printed, standard output and error."""

    def printed(self) -> str:
        """Return all that QEMU has printed so far."""
        # Not seek(): QEMU writes at the very file offset that a seek here would move.
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0).decode(errors="replace")


@functools.cache
def why_unavailable() -> str | None:
    """Say what keeps this machine from running the harness, or None. Takes milliseconds, once."""
    for program in (PROGRAM, "unshare", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{TUN}: {error.strerror}"
    try:
        probe = subprocess.run(
            [*namespace(), "true"], capture_output=True, text=True, timeout=GUARD
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unshare: {error}"
    return None if probe.returncode == 0 else f"no network namespace: {probe.stderr.strip()}"


@asynccontextmanager
async def run_qemu(options: Options) -> AsyncIterator[Process]:
    """Run QEMU for the time of the context; it is killed and reaped however that ends."""
    async with run_command(functools.partial(command_line, options)) as process:
        yield process


@asynccontextmanager
async def run_command(command: Command) -> AsyncIterator[Process]:
    """Run a QEMU, as run_qemu does, whose command line is this one's for its two sockets."""
    with tempfile.TemporaryFile() as output:
        async with _child(command, output) as process:
            yield process


@asynccontextmanager
async def _child(command: Command, output: BinaryIO) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        ours_qtest, its_qtest = _socket_pair(stack)
        ours_qmp, its_qmp = _socket_pair(stack)
        child = await asyncio.create_subprocess_exec(
            *command(its_qtest.fileno(), its_qmp.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(its_qtest.fileno(), its_qmp.fileno()),
        )
        stack.push_async_callback(_end, child)
        # With a copy of its ends here, QEMU's death would never end the streams.
        its_qtest.close()
        its_qmp.close()
        yield Process(pid=child.pid, qtest=ours_qtest, qmp=ours_qmp, output=output)


def command_line(options: Options, qtest_fd: int, qmp_fd: int) -> list[str]:
    """Return QEMU's command line, for a QEMU that inherits these two sockets."""
    queues = f",queues={options.queue_pairs}" if options.queue_pairs > 1 else ""
    return [
        *namespace(),
        *("setpriv", "--pdeathsig", "KILL", options.qemu),
        *("-no-user-config", "-nodefaults", "-display", "none", "-S", "-accel", "tcg"),
        *("-machine", f"{options.machine},memory-backend=memory", "-m", f"{MEMORY_SIZE // MIB}M"),
        "-object",
        f"memory-backend-memfd,id=memory,size={MEMORY_SIZE},share=on,seal=on",
        "-netdev",
        f"tap,id=net,ifname=tap0,script=no,downscript=no,vnet_hdr=on{queues}",
        *(("-device", "pcie-root-port,id=root0") if options.root_port else ()),
        *("-device", device_properties(options)),
        *("-chardev", f"socket,id=qtest,fd={qtest_fd}", "-qtest", "chardev:qtest"),
        *("-qtest-log", "/dev/null"),
        *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *options.more,
        *(("-qmp", f"unix:{options.monitor},server=on,wait=off") if options.monitor else ()),
    ]


def device_properties(options: Options) -> str:
    """Return the argument of -device."""
    queues = "on" if options.queue_pairs > 1 else "off"
    own = f"virtio-net-pci,netdev=net,romfile=,disable-legacy=on,vectors={options.vectors}"
    port = ",bus=root0" if options.root_port else ""
    more = f",{options.device_properties}" if options.device_properties else ""
    if options.packed:
        more += ",packed=on"
    return f"{own}{port},mq={queues},mac={options.mac}{more}"


def open_guest_memory(pid: int) -> int:
    """Open that QEMU's guest memory and return the descriptor, which is the caller's.

    Raises StartError where there is none, or where it isn't sealed against shrinking.
    """
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if _is_guest_memory(link):
            return _open_sealed(link)
    raise StartError(f"QEMU (pid {pid}) holds no memfd named {MEMFD_NAME}")


def _is_guest_memory(link: Path) -> bool:
    # QEMU opens and closes descriptors as it runs: one that is gone wasn't the memory.
    with suppress(FileNotFoundError):
        return link.readlink().name.startswith(f"memfd:{MEMFD_NAME}")
    return False


def _open_sealed(link: Path) -> int:
    memory = os.open(link, os.O_RDWR | os.O_CLOEXEC)
    if not fcntl.fcntl(memory, F_GET_SEALS) & F_SEAL_SHRINK:
        os.close(memory)
        raise StartError("the guest's memory is not sealed against shrinking")
    return memory


def namespace() -> list[str]:
    """Return what runs the command behind it in a network namespace of its own."""
    return ["unshare", "-n" if os.geteuid() == 0 else "-rn"]


def _socket_pair(stack: AsyncExitStack) -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(its.close)
    return ours, its


async def _end(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()
    reaped = asyncio.ensure_future(child.wait())
    try:
        await asyncio.shield(reaped)
    except asyncio.CancelledError:
        # A killed process is gone in milliseconds: no canceller needs it left unreaped.
        await reaped
        raise
