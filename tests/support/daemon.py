"""vdpad as a process of its own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, Self

from tests.support.descriptors import open_descriptors_of
from tests.support.forker import Child, forker_of
from tests.support.waiting import GUARD, wait_until

ROOT = Path(__file__).parents[2]
MODULE = "vdpad.cli.vdpad"
VDPAD = (sys.executable, "-m", MODULE)
"""The command line of a daemon. Run it in ROOT."""


class Daemon:
    """vdpad as a process, in a folder with its socket, settings and log."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] | None = None,
        within: int | None = None,
        **settings: Any,
    ) -> None:
        """Starts it; `ready` tells when it listens.

        Args:
            folder: that is its own.
            command: that runs it, to which vdpad's options are added; without one it is forked,
                which is quick, but its memory is then not all its own.
            within: the process whose mounts and network it has, if not the tests'; for one that
                is forked.
            settings: as in its configuration.
        """
        self.socket = folder / "vdpad.sock"
        self._log = folder / "vdpad.log"
        config = folder / "vdpad.toml"
        config.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in settings.items()))
        options = ("--socket", str(self.socket), "--config", str(config))
        with self._log.open("ab") as log:
            self.process = _started(command, within, options, log)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def ready(self) -> Self:
        """Returns when it listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            wait_until(lambda: self._listens(probe), said=self.log)
        return self

    def _listens(self, probe: socket.socket) -> bool:
        try:
            probe.connect(str(self.socket))
        except OSError:
            assert self.process.poll() is None, self.log()
            return False
        return True

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What it has logged of these events."""
        events = (json.loads(line) for line in self.log().splitlines())
        return [event for event in events if event["event"] in names]

    def descriptors(self) -> dict[str, str]:
        """What it has open."""
        return open_descriptors_of(self.pid)

    def mappings(self, of: str) -> list[str]:
        """The lines of its /proc/PID/maps in which this stands."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        return [line for line in lines if of in line]

    def resident_kib(self) -> int:
        """How much memory it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

    def cpu_seconds(self) -> float:
        """How long it has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        """Asks it to stop, and waits for nothing."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, once it has one."""
        return self.process.wait(GUARD)

    def stop(self) -> int:
        """Stops it and gives its exit code; one that does not stop is killed."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(GUARD)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _started(
    command: Sequence[str] | None, within: int | None, options: Sequence[str], log: IO[bytes]
) -> "Child | subprocess.Popen[bytes]":
    if command is None:
        return forker_of(MODULE).start(*options, stderr=log, within=within)
    return subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stderr=log, cwd=ROOT)


@contextmanager
def daemon(folder: Path, command: Sequence[str] | None = None, **settings: Any) -> Iterator[Daemon]:
    """A daemon of its own, listening, for tests without a loop."""
    running = Daemon(folder, command, **settings)
    try:
        yield running.ready()
    finally:
        running.stop()


@asynccontextmanager
async def running(
    folder: Path, command: Sequence[str] | None = None, **settings: Any
) -> AsyncIterator[Daemon]:
    """A daemon of its own, listening."""
    process = Daemon(folder, command, **settings)
    try:
        yield await asyncio.to_thread(process.ready)
    finally:
        await asyncio.to_thread(process.stop)


def refused(*arguments: str) -> str:
    """What a vdpad that cannot start says: one line, and exit code 1."""
    done = forker_of(MODULE).run(*arguments, timeout=GUARD)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (1, b"")
    assert said.startswith("vdpad: ")
    assert len(said.splitlines()) == 1, said
    return said


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
