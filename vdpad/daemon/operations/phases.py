"""The phases of an operation, and what there is in each of them only.

    Ready ──▶ Commit ──▶ Success, Failure
      └─────▶ Cancellation, Shutdown            (and Interruption, of an earlier daemon's)

The last five are its endings (records/endings.py). Which may follow which, transitions.py says.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial

from vdpad.daemon.records.endings import Ending, Failure, Success
from vdpad.daemon.records.file import Record
from vdpad.daemon.targets.interface import Destination
from vdpad.queues.control_queue import Lent
from vdpad.restore.program import Program
from vdpad.restore.report import Report
from vdpad.service.refusal import Kind, Refusal

# Requests that wait for one commit. Stops its repetitions from filling memory and descriptors.
_MAX_WAITING = 8


@dataclass(frozen=True, slots=True)
class Ready:
    """It is prepared: all that its commit needs."""

    destination: Destination
    program: Program
    record: Record
    by_name: Counter[str]
    """How many commands of each name the program has."""
    memory: int
    """About how many bytes the program takes."""


class Commit:
    """Its commit runs, as a task that is no request's."""

    def __init__(self, task: "asyncio.Task[Success | Failure]", lent: Lent | None = None) -> None:
        """
        Args:
            task: ends when the commit has ended, and raises only what is a fault of ours.
            lent: what it works on, where that was lent.
        """
        self.task = task
        self.lent = lent
        self._waiting: set[asyncio.Future[Success | Failure]] = set()

    def is_over(self, ending: Success | Failure) -> None:
        """It has ended so, and whoever waits goes on: sooner than the task's end would tell it."""
        for each in self._waiting:
            if not each.done():
                each.set_result(ending)

    async def ending(self) -> Success | Failure:
        """How it ended, once it has. On cancellation it runs on.

        Raises:
            Refusal: overloaded: many wait for it already.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise Refusal(Kind.OVERLOADED, "many requests wait for this commit; ask for its status")
        ended: asyncio.Future[Success | Failure] = asyncio.get_running_loop().create_future()
        settle = partial(_settle, ended)
        self._waiting.add(ended)
        self.task.add_done_callback(settle)
        try:
            return await ended
        finally:
            self.task.remove_done_callback(settle)
            self._waiting.discard(ended)


def _settle(
    ended: "asyncio.Future[Success | Failure]", task: "asyncio.Task[Success | Failure]"
) -> None:
    """Passes on what a task came to, to who has not heard of it."""
    if ended.done():
        return
    if task.cancelled():
        ended.cancel()
    elif (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(task.result())


OperationPhase = Ready | Commit | Ending

Begun = Commit | Success | Failure


async def outcome(begun: Begun) -> Report:
    """The report of a commit, once it has ended. On cancellation the commit runs on.

    Raises:
        Refusal: rejected, timeout, device-broken, internal: how it failed, with the report where
            there is one; overloaded: many wait for it already.
    """
    ending = await begun.ending() if isinstance(begun, Commit) else begun
    if isinstance(ending, Success):
        return ending.report
    kind, message = ending.failure
    data = {} if ending.report is None else {"report": ending.report.to_json()}
    raise Refusal(kind, message, **data)
