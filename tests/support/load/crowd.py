"""A daemon as a service has it, with records and metrics, and the processes of its clients."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support import daemon as daemons
from tests.support.daemon import ROOT, VDPAD, Daemon
from tests.support.load.stories import CLIENTS, devices
from tests.support.load.tally import Tally

# As few as leave a processor of two to the daemon.
PROCESSES = 1

MANY_KEPT = 2048


def settings(folder: Path, kept: int) -> dict[str, Any]:
    """Those of the daemon under load.

    Args:
        folder: on tmpfs, as a service's RuntimeDirectory is.
        kept: so many operations that have ended.
    """
    return {
        "software": devices(),
        "limits": {"operations_kept": kept},
        "records": {"directory": folder / "operations"},
        "metrics": {"textfile": folder / "vdpad.prom", "interval_s": 1},
    }


class Crowd:
    """64 clients."""

    def __init__(self, socket: Path, *, ending: bool = False) -> None:
        """
        Args:
            socket: a daemon's that listens.
            ending: it will be stopped meanwhile.
        """
        share = CLIENTS // PROCESSES
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.load.clients"),
                    *(str(socket), str(first), str(share)),
                    *(["--ending"] if ending else []),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for first in range(0, CLIENTS, share)
        ]
        self.remembered: list[tuple[str, str]] = []
        """Migrations of which the end is known, and their outcomes; the last few."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def ask(self, requests: int) -> Tally:
        """About so many requests by all together; afterwards nothing is under way."""
        self.begin(requests)
        return self.end()

    def begin(self, requests: int) -> None:
        """The first half of `ask`."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{requests // len(self._processes)}\n")
            process.stdin.flush()

    def end(self) -> Tally:
        """Its second half."""
        whole = Tally()
        self.remembered = []
        for process in self._processes:
            assert process.stdout is not None
            tally, remembered = json.loads(process.stdout.readline())
            self.remembered += map(tuple, remembered)
            whole.add(Tally.of_json(tally))
        return whole


@contextmanager
def daemon(
    folder: Path, command: Sequence[str] | None = VDPAD, kept: int = MANY_KEPT
) -> Iterator[Daemon]:
    """A daemon with all its devices, listening.

    Args:
        folder: on tmpfs, as a service's RuntimeDirectory is.
        command: that runs it; without one it is forked.
        kept: so many operations that have ended. Some hundreds at least: more than end while a
            client waits for its turn, and then asks for its own again.
    """
    with daemons.daemon(folder, command, **settings(folder, kept)) as running:
        yield running


def percentile(values: Sequence[int], percent: float) -> float:
    """The smallest value that so many percent do not exceed; NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
