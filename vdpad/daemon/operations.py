"""Operations: what became of each migration that was asked for.

An operation is known by its migration, and is for one state and one target (their digest). States:

    prepared ──commit──▶ committing ──▶ restored        every command acked OK
        │                    └────────▶ failed          rejected, late, or a broken device
        └────cancel───▶ cancelled

An operation has a record beside it (records.py), which goes the same way and outlives the daemon.
What the next daemon finds unended there is failed, with a report that says "interrupted". One that
the daemon itself ended before anything was sent, by its death or by `stop`, is renewable: the same
may be prepared again, in its place.

Only `_start` leaves `prepared` for `committing`, and only the commit's own task leaves that; it
belongs to the operation and not to a request, so it goes on when its client dies. Whoever asks for
the same again while it runs waits for the same end, and afterwards gets the record of it. A lend
that is refused leaves the operation prepared, since no device was touched.

Nothing here suspends between looking at a state and changing it; that is all the locking there is.
"""

import asyncio
import contextlib
from collections import Counter

from vdpad.daemon.announcing import Announce, log_event
from vdpad.daemon.bookkeeping import Bookkeeping
from vdpad.daemon.collector import no_collection
from vdpad.daemon.events.operations import Cancelled, CommitFailed, Committing, Prepared
from vdpad.daemon.events.replayed import replayed_event
from vdpad.daemon.faults import ApiError, Kind
from vdpad.daemon.operation import ENDED, Operation, State, Wish
from vdpad.daemon.preparing import Preparing, cut_short, prepared
from vdpad.daemon.records import Records
from vdpad.daemon.settings import Limits, Replay
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.program import Program
from vdpad.restore.replay import replay
from vdpad.restore.report import Report

# How long a request that stops no guest gives way to commits, in seconds. Longer than a commit
# takes on a device that works; a device that does not must hold nobody up.
_MOST_COURTESY = 0.05

# Requests that wait for one commit. Stops its repetitions from filling memory and descriptors.
_MOST_WAITING = 8


class Operations:
    """All operations of this daemon, oldest first."""

    def __init__(
        self, limits: Limits, waiting: Replay, records: Records, announce: Announce = log_event
    ) -> None:
        self._limits = limits
        self._waiting = waiting
        self._announce = announce
        self._all: dict[str, Operation] = {}
        self._preparing: dict[str, Preparing] = {}
        self._in_use: dict[object, str] = {}
        """Which migration's commit has a device, by the target's identity."""
        self._no_commit = asyncio.Event()
        self._no_commit.set()
        self._stopping = False
        self._books = Bookkeeping(records, announce, lambda: bool(self._in_use))

    def recall(self) -> None:
        """Takes in what earlier daemons did, by their records."""
        self._all |= {each.migration: each for each in self._books.recall()}

    def use(self, limits: Limits, waiting: Replay) -> None:
        """Other settings from the next request on; commits that run keep theirs."""
        self._limits = limits
        self._waiting = waiting

    async def prepare(self, wish: Wish) -> Operation:
        """The operation for a wish: recorded already, or made ready, planned and encoded now.

        On cancellation the device is let go of, and nothing is recorded.

        Raises:
            ApiError: incompatible, conflict, overloaded; what the target raises.
        """
        digest = wish.digest()
        while (earlier := self._preparing.get(wish.migration)) is not None:
            _refuse_another(earlier.digest, digest)
            await earlier.ended.wait()
        known = self._all.get(wish.migration)
        if known is not None:
            _refuse_another(known.digest, digest)
            if not known.renewable:
                return known
        if self._stopping:
            raise _is_stopping()
        self._make_room()
        operation = await self._prepare_anew(wish, digest)
        self._take_in(operation, operation.program)
        self._announce(
            Prepared(
                *operation.named,
                operation.commands,
                operation.doorbells,
                operation.prepare_us,
                operation.widened,
            )
        )
        return operation

    def begin(self, migration: str, fds: list[int], deadline_ms: int | None) -> Operation:
        """Begins the commit of a prepared operation; one that was begun stays as it is.

        Args:
            migration: of a prepared operation.
            fds: the request's descriptors; they stay the caller's to close.
            deadline_ms: for the whole replay; None for the configured one.

        Raises:
            ApiError: no-such-migration (or the daemon ended it before its commit), busy, conflict
                (it was cancelled).
            BadLend: the operation stays prepared.
        """
        operation = self.get(migration)
        if operation.renewable:
            raise ApiError(
                Kind.NO_SUCH_MIGRATION,
                "the daemon ended before this commit, and nothing was sent; prepare the same again",
            )
        if operation.state is State.CANCELLED:
            raise ApiError(
                Kind.CONFLICT,
                "this migration was cancelled; prepare the state under another name",
                digest=operation.digest,
            )
        if operation.state is State.PREPARED:
            self._start(operation, fds, deadline_ms)
        return operation

    async def outcome(self, operation: Operation) -> Report:
        """The report of an operation that was begun, when its commit has ended.

        Cancellation of the caller leaves the commit running.

        Raises:
            ApiError: rejected, timeout, device-broken; overloaded: many wait for it already.
        """
        if operation.commit is not None:
            if operation.waiting >= _MOST_WAITING:
                raise ApiError(
                    Kind.OVERLOADED, "many requests wait for this commit; ask for its status"
                )
            operation.waiting += 1
            try:
                await asyncio.shield(operation.commit)
            finally:
                operation.waiting -= 1
        return operation.outcome()

    def get(self, migration: str) -> Operation:
        """The operation of a migration.

        Raises:
            ApiError: no-such-migration.
        """
        operation = self._all.get(migration)
        if operation is None:
            raise ApiError(
                Kind.NO_SUCH_MIGRATION, "nothing was prepared for this migration, or long ago"
            )
        return operation

    def was_restored(self, migration: str) -> bool:
        """Whether this migration's commit is known to have gone well."""
        operation = self._all.get(migration)
        return operation is not None and operation.state is State.RESTORED

    def newest_first(self) -> list[Operation]:
        """All operations."""
        return list(reversed(self._all.values()))

    def by_state(self) -> dict[str, int]:
        """How many operations are in each state."""
        found = Counter(each.state for each in self._all.values())
        return {state.value: found[state] for state in State}

    async def cancel(self, migration: str) -> Operation:
        """Cancels a prepared operation and lets go of its device; one that has ended stays.

        Raises:
            ApiError: no-such-migration; busy: its commit runs, and commands cannot be called back.
        """
        operation = self.get(migration)
        if self._cancelled_now(operation):
            assert operation.destination is not None
            await operation.destination.give_up()
        return operation

    def device_goes(self, migration: str) -> None:
        """The device that this migration has is about to be released: no commit will come.

        Raises:
            ApiError: busy: its commit runs.
        """
        operation = self._all.get(migration)
        if operation is not None:
            self._cancelled_now(operation)

    async def let_commits_pass(self) -> None:
        """Returns when no commit runs, or after a moment: work that can wait should wait here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST_COURTESY):
                await self._no_commit.wait()

    async def stop(self) -> None:
        """Takes on nothing more, cancels what has not begun, and waits for the commits under way.

        They end by their deadlines. What was cancelled may be prepared again by the next daemon.
        """
        self._stopping = True
        for under_way in self._preparing.values():
            under_way.task.cancel()
        cancelled = [each for each in self._all.values() if each.state is State.PREPARED]
        for each in cancelled:
            each.renewable = True
            self._cancelled_now(each)
        given_up = (each.destination.give_up() for each in cancelled if each.destination)
        commits = (each.commit for each in self._all.values() if each.commit)
        await asyncio.gather(*given_up, *commits, return_exceptions=True)
        self._books.settle_all()

    def seconds_of_commits(self) -> float:
        """By when all commits that run now have ended, at the latest, in seconds from now."""
        running = [each.ends_by for each in self._all.values() if each.commit]
        return max(0.0, max(running, default=0.0) - asyncio.get_running_loop().time())

    def _cancelled_now(self, operation: Operation) -> bool:
        """Cancels what is prepared, and says whether it was.

        Raises:
            ApiError: busy.
        """
        if operation.state is State.COMMITTING:
            raise ApiError(
                Kind.BUSY,
                "its commit is running; it ends by its deadline, `status` then tells how",
                migration=operation.migration,
            )
        if operation.state is not State.PREPARED:
            return False
        operation.state = State.CANCELLED
        operation.program = None
        self._books.cancelled(operation)
        self._announce(Cancelled(*operation.named))
        return True

    async def _prepare_anew(self, wish: Wish, digest: str) -> Operation:
        """
        Raises:
            ApiError: overloaded: the daemon's end cut it short; else as prepared.
        """
        task = asyncio.current_task()
        assert task is not None
        under_way = self._preparing[wish.migration] = Preparing(digest, task)
        try:
            return await prepared(wish, digest)
        except asyncio.CancelledError:
            if not self._stopping or task.uncancel():
                raise
            self._take_in(cut_short(wish, digest), None)
            raise _is_stopping() from None
        finally:
            del self._preparing[wish.migration]
            under_way.ended.set()

    def _take_in(self, operation: Operation, program: Program | None) -> None:
        """Makes an operation known, in the place of one that it renews, and begins its record."""
        self._all.pop(operation.migration, None)
        self._all[operation.migration] = operation
        self._books.begin(operation, program)

    # --- the commit ---

    def _start(self, operation: Operation, fds: list[int], deadline_ms: int | None) -> None:
        """Opens the control queue and lets the commit's task begin."""
        destination, record = operation.destination, operation.record
        assert destination is not None
        assert record is not None
        identity = destination.identity(fds)
        holder = self._in_use.get(identity)
        if holder is not None:
            raise ApiError(Kind.BUSY, f"the commit of {holder} has this device", migration=holder)
        queue = destination.open(fds)
        self._in_use[identity] = operation.migration
        self._no_commit.clear()
        record.begin()
        operation.state = State.COMMITTING
        self._announce(Committing(*operation.named, operation.commands))
        operation.commit = asyncio.get_running_loop().create_task(
            self._run(operation, queue, identity, deadline_ms or self._waiting.deadline_ms),
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
                operation.ends_by = asyncio.get_running_loop().time() + deadline_ms / 1000
                replayed = await replay(
                    program,
                    queue,
                    deadline=operation.ends_by,
                    poll_ns=self._waiting.poll_us * 1000,
                    progress=record.progress,
                )
            outcome = operation.ended(program, replayed)
        except BaseException as error:
            operation.state = State.FAILED
            operation.failure = (Kind.INTERNAL, "the commit failed; see the journal")
            self._announce(CommitFailed(*operation.named, error))
            raise
        finally:
            queue.close()
            del self._in_use[identity]
            if not self._in_use:
                self._no_commit.set()
            operation.program = None
            operation.commit = None
            self._books.ended(operation)
        self._announce(
            replayed_event(operation.named, program.commands, operation.by_name, replayed, outcome)
        )
        destination.done()

    # --- room for operations ---

    def _make_room(self) -> None:
        """Forgets the oldest that has ended, where there are as many as may be.

        Raises:
            ApiError: overloaded.
        """
        programs = [each.memory for each in self._all.values() if each.state not in ENDED]
        active = len(programs) + len(self._preparing)
        if active >= self._limits.operations_at_once:
            raise ApiError(
                Kind.OVERLOADED,
                f"{active} operations are prepared or committing, which is the limit; commit or "
                "cancel some (limits.operations_at_once)",
            )
        if sum(programs) >= self._limits.memory_mib << 20:
            raise ApiError(
                Kind.OVERLOADED,
                f"what is prepared or committing takes {sum(programs) >> 20} MiB, which is the "
                "limit; commit or cancel some (limits.memory_mib)",
            )
        if len(self._all) < self._limits.operations_kept:
            return
        for operation in self._all.values():
            if operation.state in ENDED:
                del self._all[operation.migration]
                self._books.forget(operation)
                return
        raise ApiError(Kind.OVERLOADED, "all records are of operations that have not ended yet")


def _is_stopping() -> ApiError:
    return ApiError(
        Kind.OVERLOADED, "the daemon is stopping and takes on nothing more; ask the next one"
    )


def _refuse_another(known: str, digest: str) -> None:
    if known != digest:
        raise ApiError(
            Kind.CONFLICT,
            "this migration is known with another state or target; give it another name",
            digest=known,
        )
