"""Operations: what became of each migration that was asked for.

An operation is known by its migration, and is for one state and one target (their digest). It is
prepared, and then committed or cancelled; its states are transitions.py's. It has a record beside
it (records/), which goes the same way and outlives the daemon. One that the daemon itself ended
before anything was sent, by its death or by `stop`, is renewable: the same may be prepared again,
in its place.

It belongs to who prepared it (requester.py). Only `begin` has a commit begin, and only the commit's
own task (commits.py) ends it. Whoever asks for the same again while it runs waits for the same end,
and afterwards gets the record of it; but not who lends another ring. A lend that is refused leaves
the operation prepared, since no device was touched.

Nothing here suspends between looking at a state and changing it; that is all the locking there is.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from vdpad.daemon.events.operations import Cancelled, Prepared
from vdpad.daemon.operations.bookkeeping import Bookkeeping
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.commits import Commits
from vdpad.daemon.operations.operation import Operation, RestoreRequest
from vdpad.daemon.operations.phases import Begun, Commit, Ready
from vdpad.daemon.operations.preparing import Preparing, cut_short, prepared
from vdpad.daemon.operations.registry import Registry
from vdpad.daemon.operations.repeated import owners_again, refuse_another, refuse_another_ring
from vdpad.daemon.operations.requester import Requester
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Cancellation, Interruption, Shutdown
from vdpad.daemon.records.owners import NOBODY
from vdpad.daemon.settings import Limits, Replay
from vdpad.service.events.announcing import Announce, Later, log_event, log_made
from vdpad.service.refusal import Kind, Refusal


class Operations:
    """All operations of this daemon, oldest first."""

    def __init__(
        self,
        limits: Limits,
        timing: Replay,
        records: Records,
        running: RunningCommits,
        changes: Changes,
        announce: Announce = log_event,
        later: Later = log_made,
    ) -> None:
        """
        Args:
            limits: how many there may be.
            timing: how long to wait for devices.
            records: where they outlive the daemon.
            running: who knows which commits run; no others' than these.
            changes: who tells those that watch.
            announce: whom to tell of what becomes of them.
            later: the same, where a guest may be waiting meanwhile.
        """
        self._announce = announce
        self._later = later
        self._preparing: dict[str, Preparing] = {}
        self._stopping = False
        self._bookkeeping = Bookkeeping(records, announce, running)
        self._registry = Registry(limits, self._bookkeeping.forget, changes.tell)
        self._commits = Commits(timing, self._bookkeeping, running, later)

    def recall(self) -> None:
        """Takes in what earlier daemons did, by their records; the newest, as many as are kept."""
        for details, ending, lent in self._bookkeeping.recall():
            self._registry.add(Operation(details, ending, lent))
        self._registry.forget_ended()

    def use(self, limits: Limits, timing: Replay) -> None:
        """Other settings from the next request on; commits that run keep theirs."""
        self._registry.limits = limits
        self._commits.timing = timing

    async def prepare(self, wanted: RestoreRequest) -> Operation:
        """The operation for a request: recorded already, or made ready, planned and encoded now.

        On cancellation the device is let go of, and nothing is recorded.

        Raises:
            Refusal: incompatible, conflict, not-allowed (the migration is another user's),
                overloaded; what the target raises.
        """
        digest = wanted.digest()
        while (earlier := self._preparing.get(wanted.migration)) is not None:
            refuse_another(wanted, digest, earlier.owners, earlier.digest)
            await earlier.ended.wait()
        known = self._registry.find(wanted.migration)
        if known is not None:
            details = known.details
            owners = owners_again(details.owners, wanted) if known.renewable else details.owners
            refuse_another(wanted, digest, owners, details.digest)
            if not known.renewable:
                return known
            wanted = replace(wanted, owners=owners)
        if self._stopping:
            raise _is_stopping()
        preparing = [each.owners.user for each in self._preparing.values()]
        self._registry.make_room(wanted.owners.user, preparing)
        operation = await self._prepare_anew(wanted, digest)
        self._registry.add(operation)
        self._later(partial(_prepared, operation.details))
        return operation

    def begin(
        self, migration: str, requester: Requester, fds: list[int], deadline_ms: int | None
    ) -> Begun:
        """Begins the commit of a prepared operation; one that was begun stays as it is.

        Args:
            migration: of a prepared operation.
            requester: who asks for it.
            fds: the request's descriptors; they stay the caller's to close.
            deadline_ms: for the whole replay; None for the configured one.

        Raises:
            Refusal: no-such-migration (or the daemon ended it before its commit), not-allowed,
                busy, conflict (it was cancelled, or was begun on another ring).
            BadLend: the operation stays prepared.
        """
        operation = self.get(migration, requester)
        match operation.phase:
            case Ready() as ready:
                return self._commits.start(operation, ready, fds, requester.user, deadline_ms)
            case Cancellation():
                raise Refusal(
                    Kind.CONFLICT,
                    "this migration was cancelled; prepare the state under another name",
                    digest=operation.details.digest,
                )
            case Interruption() | Shutdown():
                raise Refusal(
                    Kind.NO_SUCH_MIGRATION,
                    "the daemon ended before this commit, and nothing was sent; "
                    "prepare the same again",
                )
            case begun:
                refuse_another_ring(operation, fds)
                return begun

    def get(self, migration: str, requester: Requester) -> Operation:
        """The operation of a migration.

        Raises:
            Refusal: no-such-migration, not-allowed.
        """
        operation = self._registry.find(migration)
        if operation is None:
            raise Refusal(
                Kind.NO_SUCH_MIGRATION, "nothing was prepared for this migration, or long ago"
            )
        requester.check(operation.details.owners)
        return operation

    def was_restored(self, migration: str) -> bool:
        """Whether this migration's commit is known to have gone well."""
        operation = self._registry.find(migration)
        return operation is not None and operation.state is State.RESTORED

    def newest_first(self, requester: Requester) -> list[Operation]:
        """All operations that he may see."""
        everything = self._registry.newest_first()
        return [each for each in everything if requester.may(each.details.owners)]

    def by_state(self) -> dict[str, int]:
        """How many operations are in each state."""
        return self._registry.by_state()

    async def cancel(self, migration: str, requester: Requester) -> Operation:
        """Cancels a prepared operation and lets go of its device; one that has ended stays.

        Raises:
            Refusal: no-such-migration, not-allowed; busy: its commit runs, and commands cannot be
                called back.
        """
        operation = self.get(migration, requester)
        ready = self._cancel(operation, Cancellation(ended=datetime.now(UTC)))
        if ready is not None:
            await ready.destination.give_up()
        return operation

    def device_goes(self, migration: str, requester: Requester) -> None:
        """The device that this migration has is about to be released: no commit will come.

        Of a migration that is not known any more it is an operator's.

        Raises:
            Refusal: not-allowed; busy: its commit runs.
        """
        operation = self._registry.find(migration)
        requester.check(NOBODY if operation is None else operation.details.owners)
        if operation is not None:
            self._cancel(operation, Cancellation(ended=datetime.now(UTC)))

    async def stop(self) -> None:
        """Takes on nothing more, cancels what has not begun, and waits for the commits under way.

        They end by their deadlines. What was cancelled may be prepared again by the next daemon.
        """
        self._stopping = True
        preparing = list(self._preparing.values())
        for under_way in preparing:
            under_way.task.cancel()
        ready = [each.phase for each in self._registry if isinstance(each.phase, Ready)]
        commits = [each.phase for each in self._registry if isinstance(each.phase, Commit)]
        for each in self._registry:
            if each.state is State.PREPARED:
                self._cancel(each, Shutdown(ended=datetime.now(UTC)))
        await asyncio.gather(
            *(under_way.ended.wait() for under_way in preparing),
            *(phase.destination.give_up() for phase in ready),
            *(asyncio.shield(phase.task) for phase in commits),
            return_exceptions=True,
        )
        self._bookkeeping.settle_all()

    async def _prepare_anew(self, wanted: RestoreRequest, digest: str) -> Operation:
        """
        Raises:
            Refusal: overloaded: the daemon's end cut it short; else as prepared.
        """
        task = asyncio.current_task()
        assert task is not None
        under_way = self._preparing[wanted.migration] = Preparing(digest, wanted.owners, task)
        try:
            return await prepared(wanted, digest, self._bookkeeping)
        except asyncio.CancelledError:
            if not self._stopping or task.uncancel():
                raise
            details, ending = cut_short(wanted, digest), Shutdown(ended=datetime.now(UTC))
            self._bookkeeping.write(details, ending)
            self._registry.add(Operation(details, ending))
            raise _is_stopping() from None
        finally:
            del self._preparing[wanted.migration]
            under_way.ended.set()

    def _cancel(self, operation: Operation, ending: Cancellation | Shutdown) -> Ready | None:
        """Ends an operation that is prepared, and gives what its commit would have had.

        Raises:
            Refusal: busy: its commit runs.
        """
        match operation.phase:
            case Commit():
                raise Refusal(
                    Kind.BUSY,
                    "its commit is running; it ends by its deadline, `status` then tells how",
                    migration=operation.migration,
                )
            case Ready() as ready:
                operation.enter(ending)
                self._bookkeeping.ended(ready.record, ending)
                self._announce(Cancelled(*operation.details.named))
                return ready
        return None


def _prepared(details: Details) -> Prepared:
    return Prepared(
        *details.named,
        details.commands,
        details.doorbells,
        details.prepare_us,
        details.widened,
        details.owners.committer,
    )


def _is_stopping() -> Refusal:
    return Refusal(
        Kind.OVERLOADED, "the daemon is stopping and takes on nothing more; ask the next one"
    )
