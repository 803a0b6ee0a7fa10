"""When vhost-vdpa queues were enabled, and how often doorbells rang, as the kernel saw it.

Kprobe events in an instance of tracefs of their own, so nobody else's tracing is disturbed, and
the traced process hardly: a load enables three queues. Doorbells are thousands, and recording makes
each dearer, so they are recorded only on request.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TRACING = Path("/sys/kernel/tracing")
INSTANCE = TRACING / "instances" / "vdpad_svq"
EVENTS = INSTANCE / "events" / "vdpad_svq"
PROBES = {
    "enable": "vhost_vdpa:vhost_vdpa_unlocked_ioctl cmd=$arg2:u32 queue=+u0($arg3):u32",
    "doorbell": "vhost_vdpa:handle_vq_kick",
}
SET_VRING_ENABLE = 0x4008AF75
BUFFER_KIB = 2048
"""Of each processor; enough for a doorbell for each of 10000 commands."""

_LINE = re.compile(r"(?P<us>\d+\.\d{6}): (?P<event>\w+): .*?(queue=(?P<queue>\d+))?$")


@dataclass(frozen=True)
class Load:
    """From the enabling of the control queue to that of a data queue."""

    us: int
    doorbells: int | None
    """None where they were not recorded."""


class Trace:
    """Records as long as its context lasts. Root only."""

    def __init__(self, *, doorbells: bool) -> None:
        self._doorbells = doorbells

    def __enter__(self) -> Self:
        _remove()  # what a killed run has left
        for name, probe in PROBES.items():
            _tell(f"p:vdpad_svq/{name} {probe}")
        INSTANCE.mkdir()
        (INSTANCE / "trace_clock").write_text("mono")
        (INSTANCE / "buffer_size_kb").write_text(str(BUFFER_KIB))
        (EVENTS / "enable" / "filter").write_text(f"cmd == {SET_VRING_ENABLE:#x}")
        (EVENTS / "enable" / "enable").write_text("1")
        (EVENTS / "doorbell" / "enable").write_text(str(int(self._doorbells)))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _remove()

    def forget(self) -> None:
        """Drops what was recorded so far."""
        (INSTANCE / "trace").write_text("")

    def load(self) -> Load:
        """The load that was recorded last.

        Raises:
            ValueError: what was recorded is no load.
        """
        lines = (INSTANCE / "trace").read_text().splitlines()
        found = [match for match in map(_LINE.search, lines) if match]
        enabled = [at for at, match in enumerate(found) if match["event"] == "enable"]
        queues = [int(found[at]["queue"]) for at in enabled]
        if len(queues) < 2 or queues[0] != max(queues):
            raise ValueError(f"expected the control queue before data queues, got {queues}")
        first, last = enabled[:2]
        doorbells = last - first - 1 if self._doorbells else None
        return Load(_micros(found[last]) - _micros(found[first]), doorbells)


def _remove() -> None:
    if INSTANCE.exists():
        for enable in EVENTS.glob("*/enable"):
            enable.write_text("0")
        INSTANCE.rmdir()
    for probe in (TRACING / "events" / "vdpad_svq").glob("*/enable"):
        _tell(f"-:vdpad_svq/{probe.parent.name}")


def _tell(definition: str) -> None:
    """Adds or removes a kprobe event. Not by open("a"): that seeks, and here nobody may."""
    events = os.open(TRACING / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(events, definition.encode())
    finally:
        os.close(events)


def _micros(match: re.Match[str]) -> int:
    return int(match["us"].replace(".", ""))
