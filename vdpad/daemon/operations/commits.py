"""Commits: the replays that run, at most one a device.

Each is a task that belongs to its operation and not to a request, so it goes on when its client
dies. A guest is stopped from the request until the reply is out, so nothing is done in between that
can be done later: what is told of a commit waits, and its record takes stores into memory only.
"""

import asyncio
import contextlib

from vdpad.daemon.events.operations import CommitFailed, Committing
from vdpad.daemon.operations.bookkeeping import Bookkeeping
from vdpad.daemon.operations.collector import no_collection
from vdpad.daemon.operations.operation import Operation, State
from vdpad.daemon.operations.replayed import replayed_event
from vdpad.daemon.settings import Replay
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.replay import replay
from vdpad.service.events.announcing import Announce
from vdpad.service.refusal import Kind, Refusal

# How long a request that stops no guest gives way to commits, in seconds. Longer than a commit
# takes on a device that works; a device that does not must hold nobody up.
_MOST_COURTESY = 0.05


class Commits:
    """All that run."""

    def __init__(self, waiting: Replay, books: Bookkeeping, soon: Announce) -> None:
        """
        Args:
            waiting: how long to wait for devices.
            books: who writes down how each ended.
            soon: whom to tell, without waiting for it.
        """
        self.waiting = waiting
        """May be set anew; commits that run keep theirs."""
        self._books = books
        self._soon = soon
        self._in_use: dict[object, str] = {}
        """Which migration's commit has a device, by the target's identity."""
        self._none = asyncio.Event()
        self._none.set()

    @property
    def are_running(self) -> bool:
        """Whether any is."""
        return bool(self._in_use)

    async def let_pass(self) -> None:
        """Returns when none runs, or after a moment: work that can wait should wait here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST_COURTESY):
                await self._none.wait()

    def start(self, operation: Operation, fds: list[int], deadline_ms: int | None) -> None:
        """Opens the control queue of a prepared operation and lets the commit's task begin.

        Raises:
            Refusal: busy: another commit has the device; what the target raises.
            BadLend: the operation stays prepared.
        """
        destination, record = operation.destination, operation.record
        assert destination is not None
        assert record is not None
        identity = destination.identity(fds)
        holder = self._in_use.get(identity)
        if holder is not None:
            raise Refusal(Kind.BUSY, f"the commit of {holder} has this device", migration=holder)
        queue = destination.open(fds)
        self._in_use[identity] = operation.migration
        self._none.clear()
        record.begin()
        operation.state = State.COMMITTING
        self._soon(Committing(*operation.named, operation.commands))
        operation.commit = asyncio.get_running_loop().create_task(
            self._run(operation, queue, identity, deadline_ms or self.waiting.deadline_ms),
            name=f"commit {operation.migration}",
        )

    async def _run(
        self, operation: Operation, queue: ControlQueue, identity: object, deadline_ms: int
    ) -> None:
        program, record, destination = operation.program, operation.record, operation.destination
        assert program is not None
        assert record is not None
        assert destination is not None
        try:
            with no_collection():
                replayed = await replay(
                    program,
                    queue,
                    deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
                    poll_ns=self.waiting.poll_us * 1000,
                    progress=record.progress,
                )
            outcome = operation.ended(program, replayed)
        except BaseException as error:
            operation.state = State.FAILED
            operation.failure = (Kind.INTERNAL, "the commit failed; see the journal")
            self._soon(CommitFailed(*operation.named, error))
            raise
        finally:
            queue.close()
            del self._in_use[identity]
            if not self._in_use:
                self._none.set()
            operation.program = None
            operation.commit = None
            self._books.ended(operation)
        self._soon(
            replayed_event(operation.named, program.commands, operation.by_name, replayed, outcome)
        )
        destination.done()
