"""What happens to a guest's command in the back end, with a clock at each step."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import Any, ClassVar

from benchmarks.shadow_guest import Times
from vdpad.backend.shadow import Shadow

PARTS = ("woken", "taken", "carried out", "told", "returned", "seen", "interrupted")


class Clocked(Shadow):
    """A shadow that takes down when it has done what, in a row for each command."""

    rows: ClassVar[list[list[int]]] = []
    """Of the one that runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        ring, forwarder = self._ring, self._forwarder
        take, forward, told, put = ring.take, forwarder.forward, self._acknowledged, ring.put
        clock = time.perf_counter_ns

        def taken() -> Any:
            began = clock()
            if chains := take():
                self.rows.append([began, clock()])
            return chains

        async def forwarded(command: bytes, room: int) -> bytes:
            answer = await forward(command, room)
            self.rows[-1].append(clock())
            return answer

        def heard(command: bytes, answer: bytes) -> None:
            told(command, answer)
            self.rows[-1].append(clock())

        def returned(head: int, length: int) -> None:
            put(head, length)
            self.rows[-1].append(clock())

        self._acknowledged = heard
        for of, name, call in (
            (ring, "take", taken),
            (forwarder, "forward", forwarded),
            (ring, "put", returned),
        ):
            setattr(of, name, call)

    def set_call(self, call: int | None) -> None:
        super().set_call(call)
        interrupt = self._call

        def called() -> None:
            assert interrupt is not None
            interrupt()
            self.rows[-1].append(time.perf_counter_ns())

        self._call = called  # type: ignore[assignment]


def parts_of(times: Times, rows: list[list[int]]) -> list[float]:
    """Medians of each of PARTS, in microseconds.

    The last two begin at once: a guest that looks at its ring sees the command before it is
    interrupted.
    """
    steps = []
    for began, row, ended in zip(times.began, rows, times.ended, strict=True):
        if len(row) < len(PARTS) - 1:
            continue  # the guest had seen it, and wanted no interrupt any more
        *until_put, called = [began, *row]
        inside = [after - before for before, after in pairwise(until_put)]
        put = until_put[-1]
        steps.append([*inside, ended - put, called - put])
    return [statistics.median(each) / 1000 for each in zip(*steps, strict=True)]
