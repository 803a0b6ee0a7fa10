"""Commits: the replays that run, at most one a device.

Each is a task that belongs to its operation and not to a request, so it goes on when its client
dies. A guest is stopped from the request until the reply is out, so nothing is done in between that
can be done later: what is told of a commit waits, and its record takes stores into memory only.
"""

import asyncio

from vdpad.daemon.events.operations import CommitFailed, Committing
from vdpad.daemon.operations.bookkeeping import Bookkeeping
from vdpad.daemon.operations.collector import no_collection
from vdpad.daemon.operations.operation import Operation, State
from vdpad.daemon.operations.replayed import replayed_event
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.settings import Replay
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.replay import replay
from vdpad.service.events.announcing import Announce
from vdpad.service.refusal import Kind, Refusal


class Commits:
    """Begins and ends them."""

    def __init__(
        self, waiting: Replay, books: Bookkeeping, running: RunningCommits, soon: Announce
    ) -> None:
        """
        Args:
            waiting: how long to wait for devices.
            books: who writes down how each ended.
            running: who knows which of them run.
            soon: whom to tell, without waiting for it.
        """
        self.waiting = waiting
        """May be set anew; commits that run keep theirs."""
        self._books = books
        self._running = running
        self._soon = soon

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
        owner = self._running.owner(identity)
        if owner is not None:
            raise Refusal(Kind.BUSY, f"the commit of {owner} has this device", migration=owner)
        queue = destination.open(fds)
        self._running.add(identity, operation.migration)
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
            self._running.remove(identity)
            operation.program = None
            operation.commit = None
            self._books.ended(operation)
        self._soon(
            replayed_event(operation.named, program.commands, operation.by_name, replayed, outcome)
        )
        destination.done()
