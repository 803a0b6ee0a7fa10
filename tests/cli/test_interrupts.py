"""Ctrl-C ends each program by SIGINT, and without a traceback."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import VDPACTL, environment
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, until

INTERRUPTED = """\
from vdpad.cli import {module} as program, terminal
def set_up():
    raise KeyboardInterrupt
terminal.set_up = set_up
program.main([])
"""


@pytest.mark.parametrize("module", ["vdpactl", "vdpad", "vdpad_vhost_user"])
def test_each_program_ends_by_the_signal_and_says_nothing(module: str) -> None:
    code = INTERRUPTED.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=GUARD, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["cancel", "vm-1"],
            b"vdpactl: interrupted; `status` tells what came of the request\n",
        ),
        (["info"], b""),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
async def test_of_a_request_on_its_way_it_says_who_tells_what_came_of_it(
    tmp_path: Path, arguments: list[str], told: bytes
) -> None:
    path = tmp_path / "vdpad.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as silent:
        silent.bind(str(path))
        silent.setblocking(False)
        process = await _started([*VDPACTL, "--socket", str(path), *arguments])
        async with asyncio.timeout(GUARD):
            await asyncio.get_running_loop().sock_recv(silent, 1 << 16)
        assert await _interrupted(process) == (-signal.SIGINT, told)


# Of a process's threads the kernel interrupts one that lets a signal through. Python's own handlers
# are the first thread's, which sleeps on: as if the signal had come just before it fell asleep.
ELSEWHERE = """\
import signal, sys, threading
from vdpad.cli import vdpactl
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
vdpactl.main(sys.argv[1:])
"""


async def test_an_interrupt_in_the_instant_before_it_waits_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "vdpad.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as silent:
        silent.bind(str(path))
        silent.setblocking(False)
        arguments = ["--socket", str(path), "--timeout", "600", "info"]
        process = await _started([sys.executable, "-c", ELSEWHERE, *arguments])
        async with asyncio.timeout(GUARD):
            await asyncio.get_running_loop().sock_recv(silent, 1 << 16)
        await _asleep(process.pid)
        assert await _interrupted(process) == (-signal.SIGINT, b"")


async def _asleep(pid: int) -> None:
    """Returns when its first thread waits."""
    stat = Path(f"/proc/{pid}/task/{pid}/stat")
    await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")


async def _started(command: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(), stderr=asyncio.subprocess.PIPE
    )


async def _interrupted(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(GUARD):
        _, stderr = await process.communicate()
    return process.returncode, stderr
