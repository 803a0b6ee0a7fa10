"""Commits: the replays that run, at most one a device.

Each is a task that belongs to its operation and not to a request, so it goes on when its client
dies. A guest is stopped from the request until the reply is out, so nothing is done in between that
can be done later: what is told of a commit waits, and its record takes stores into memory only.
"""

import asyncio
from datetime import UTC, datetime
from functools import partial

from vdpad.daemon.events.operations import CommitFailed, Committing
from vdpad.daemon.operations.bookkeeping import Bookkeeping
from vdpad.daemon.operations.collector import no_collection
from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.phases import Commit, Ready
from vdpad.daemon.operations.replayed import replayed_event
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.records.details import report_of
from vdpad.daemon.records.endings import Failure, Success
from vdpad.daemon.settings import Replay
from vdpad.daemon.targets.lent import lent_as
from vdpad.queues.control_queue import ControlQueue, Lent
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.restore.report import Report
from vdpad.service.events.announcing import Later
from vdpad.service.refusal import Kind, Refusal

_FAILURES = {
    Outcome.REJECTED: (Kind.REJECTED, "the device refused {rejected} of {commands} commands"),
    Outcome.INCOMPLETE: (
        Kind.TIMEOUT,
        "{unanswered} of {commands} commands were not answered by the deadline; {stood}",
    ),
    Outcome.BROKEN: (Kind.DEVICE_BROKEN, "the device broke the rules of the ring: {fault}"),
}


class Commits:
    """Begins commits and sees each to its end; docs/architecture.md has their way."""

    def __init__(
        self, timing: Replay, bookkeeping: Bookkeeping, running: RunningCommits, later: Later
    ) -> None:
        """
        Args:
            timing: how long to wait for devices.
            bookkeeping: who writes down how each ended.
            running: who knows which of them run.
            later: whom to tell, without waiting for it.
        """
        self.timing = timing
        """May be set anew; commits that run keep theirs."""
        self._bookkeeping = bookkeeping
        self._running = running
        self._later = later

    def start(
        self,
        operation: Operation,
        ready: Ready,
        fds: list[int],
        user: int,
        deadline_ms: int | None,
    ) -> Commit:
        """Opens the control queue of a prepared operation and lets the commit's task begin.

        Args:
            operation: the one that is prepared.
            ready: its phase.
            fds: the request's descriptors; they stay the caller's to close.
            user: who sent them: a uid, or ANOTHER_HOST.
            deadline_ms: for the whole replay; None for the configured one.

        Raises:
            Refusal: busy: another commit has the device; what the target raises.
            BadLend: the operation stays prepared.
        """
        identity = ready.destination.identity(fds)
        owner = self._running.owner(identity)
        if owner is not None:
            raise Refusal(Kind.BUSY, f"the commit of {owner} has this device", migration=owner)
        queue = ready.destination.open(fds, user)
        self._running.add(identity, operation.migration)
        lent = lent_as(queue) if operation.is_lent else None
        ready.record.begin(lent)
        self._later(partial(_committing, operation, lent))
        deadline_ms = deadline_ms or self.timing.deadline_ms
        task = asyncio.get_running_loop().create_task(
            self._run(operation, ready, queue, identity, deadline_ms),
            name=f"commit {operation.migration}",
        )
        commit = Commit(task, lent)
        operation.enter(commit)
        return commit

    async def _run(
        self,
        operation: Operation,
        ready: Ready,
        queue: ControlQueue,
        identity: object,
        deadline_ms: int,
    ) -> Success | Failure:
        details, commands = operation.details, ready.program.commands
        commit = operation.phase
        assert isinstance(commit, Commit)
        ending: Success | Failure
        try:
            replayed = await self._replay(ready, queue, deadline_ms)
            report = report_of(details, commands, replayed)
            ending = _ending(report, replayed, is_lent=operation.is_lent)
        except BaseException as error:
            ending = _our_fault()
            self._later(CommitFailed(*details.named, error))
            raise
        finally:
            queue.close()
            self._running.remove(identity)
            operation.enter(ending)
            self._bookkeeping.ended(ready.record, ending)
        told = (details.named, commands, ready.by_name, replayed, report)
        self._later(partial(replayed_event, *told))
        ready.destination.done()
        commit.is_over(ending)
        return ending

    async def _replay(self, ready: Ready, queue: ControlQueue, deadline_ms: int) -> Replayed:
        with no_collection():
            return await replay(
                ready.program,
                queue,
                deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
                poll_ns=self.timing.poll_us * 1000,
                progress=ready.record.progress,
            )


def _committing(operation: Operation, lent: Lent | None) -> Committing:
    told = "" if lent is None else str(lent)
    return Committing(*operation.details.named, operation.details.commands, told)


def _ending(report: Report, replayed: Replayed, *, is_lent: bool) -> Success | Failure:
    """What a replay's end makes of its operation, as of now."""
    ended = datetime.now(UTC)
    if replayed.outcome is Outcome.RESTORED:
        return Success(report=report, ended=ended)
    stood = replayed.standstill
    kind, message = _FAILURES[replayed.outcome]
    message = message.format(
        rejected=report.rejected_total,
        unanswered=report.unanswered_total,
        commands=report.commands,
        fault=replayed.fault,
        stood="" if stood is None else stood.sentence(lent=is_lent),
    )
    return Failure(report=report, failure=(kind, message), ended=ended)


def _our_fault() -> Failure:
    failure = (Kind.INTERNAL, "the commit failed; see the journal")
    return Failure(failure=failure, ended=datetime.now(UTC))
