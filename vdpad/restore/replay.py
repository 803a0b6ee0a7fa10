"""The replay: a program goes through a control queue, and each command's outcome comes out.

The guest is stopped while this runs. What goes to the device and comes back is the pipeline's; here
is how the time in between is spent, and what the whole came to.

Waiting: look at the used index for a bounded while, with no interrupt asked for, and with turns for
the event loop's other tasks in between. If that was not enough, ask for one interrupt when the
oldest bank can be complete, look once more (the device may have been faster than our wish), and
sleep. A sleeper also looks now and then by itself, since an interrupt that a lender failed to pass
on should cost milliseconds and not the deadline.

A broken device, or one that is late, is sent nothing more. It still owns its buffers; only a reset
gets them back.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from enum import StrEnum

from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.faults import DeviceFault
from vdpad.restore.pipeline import Pipeline
from vdpad.restore.program import Program
from vdpad.restore.progress import Progress
from vdpad.restore.standstill import Standstill

# How long the event loop may be kept from others: by one look at a ring where nothing comes, and by
# a device that always answers while we look.
_MAX_LOOKING_NS = 100_000
_MAX_WITHOUT_YIELD_NS = 2_000_000

# How long a sleeper sleeps before it looks by itself, in seconds: doubling from first to last.
_FIRST_NAP = 0.001
_LONGEST_NAP = 0.05


class Outcome(StrEnum):
    """What a replay came to, as the API names it."""

    RESTORED = "restored"
    """Every command was acked OK."""
    REJECTED = "rejected"
    """Every command was acked, some with ERR."""
    INCOMPLETE = "incomplete"
    """The deadline came first."""
    BROKEN = "broken"
    """The device did what no device may."""
    INTERRUPTED = "interrupted"
    """The process that replayed ended first; no replay returns this."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of each command, by its index in the program."""

    outcome: Outcome
    rejected: tuple[int, ...]
    """Acked ERR."""
    unanswered: tuple[int, ...]
    """Sent and not acked, or never sent."""
    doorbells: int
    elapsed_ns: int
    """From the first image copied to the last ack read."""
    next_index: int | None
    """Where the ring stands, as ControlQueue has it; None where the device still has buffers."""
    fault: str = ""
    """What a broken device did."""
    standstill: Standstill | None = None
    """How the ring stood at the deadline; None where no deadline came."""
    wrong_lengths: tuple[tuple[int, int], ...] = ()
    """Used lengths other than an ack's 1 byte, and how many commands came back with each."""


async def replay(
    program: Program,
    queue: ControlQueue,
    *,
    deadline: float,
    poll_ns: int,
    progress: Progress | None = None,
) -> Replayed:
    """Sends a program through an idle queue and reads the acks.

    Never raises for what a device does. On cancellation the queue is left as it stands: chains
    that were published are the device's until it is reset.

    Args:
        program: encoded for this queue's geometry.
        queue: idle, and nobody else's.
        deadline: in the running loop's time, for all of it.
        poll_ns: how long to look at the ring before sleeping, in nanoseconds, each time.
        progress: fresh; where it is written down how far this has come.
    """
    started = time.perf_counter_ns()
    run = _Replay(program, queue, poll_ns if queue.worth_polling else 0, progress)
    try:
        return await run.timed(started, deadline)
    finally:
        run.close()


class _Replay:
    def __init__(
        self, program: Program, queue: ControlQueue, poll_ns: int, progress: Progress | None
    ) -> None:
        self._queue = queue
        self._poll_ns = poll_ns
        self._pipeline = Pipeline(program, queue.ring, queue.next_index, queue.kick, progress)
        self._before = self._pipeline.standing()
        self._first = 0
        """Commands that the first doorbell was for."""
        self._yielded_ns = time.perf_counter_ns()

    async def timed(self, started: int, deadline: float) -> Replayed:
        """All of it, and what it came to since it was started (in perf_counter_ns)."""
        outcome, fault = Outcome.RESTORED, ""
        try:
            async with asyncio.timeout_at(deadline):
                await self.to_the_end()
        except DeviceFault as error:
            outcome, fault = Outcome.BROKEN, str(error)
        except TimeoutError:
            outcome, fault = self.last_look()
        return self.finish(outcome, fault, time.perf_counter_ns() - started)

    def close(self) -> None:
        """Lets go of the ring's memory."""
        self._pipeline.close()

    async def to_the_end(self) -> None:
        """Publishes and collects until all is back.

        Raises:
            DeviceFault: the device broke a rule.
        """
        pipeline = self._pipeline
        if not pipeline.unpublished:
            return
        pipeline.ask_for_no_interrupt()
        pipeline.publish(ring_anyway=True)
        self._first = pipeline.published
        quiet_ns = min(self._poll_ns, _MAX_LOOKING_NS)
        while pipeline.in_flight:
            turn_ends = self._yielded_ns + _MAX_WITHOUT_YIELD_NS
            went_on = pipeline.run_fast(quiet_ns, turn_ends)
            if time.perf_counter_ns() >= turn_ends:
                await self._let_others_run()
                if went_on:
                    continue
            wanted = pipeline.outstanding()
            if pipeline.arrived() < wanted:
                await self._wait_for(wanted)
            pipeline.collect()
            if pipeline.unpublished:
                pipeline.publish()

    async def _wait_for(self, wanted: int) -> None:
        """Returns when so many have arrived."""
        give_up = time.perf_counter_ns() + self._poll_ns
        while not self._look(wanted, give_up):
            if time.perf_counter_ns() >= give_up:
                await self._sleep(wanted)
                return
            await self._let_others_run()

    def _look(self, wanted: int, give_up: int) -> bool:
        """Looks at the used index for a while; whether so many have arrived."""
        arrived, now = self._pipeline.arrived, time.perf_counter_ns
        until = min(give_up, now() + _MAX_LOOKING_NS)
        while now() < until:
            if arrived() >= wanted:
                return True
        return False

    async def _let_others_run(self) -> None:
        # First a device that shares our processor, which the event loop knows nothing of.
        os.sched_yield()
        await asyncio.sleep(0)
        self._yielded_ns = time.perf_counter_ns()

    async def _sleep(self, wanted: int) -> None:
        pipeline = self._pipeline
        pipeline.ask_for_interrupt(wanted)
        nap = _FIRST_NAP
        while (before := pipeline.arrived()) < wanted:
            await self._queue.called(nap)
            self._yielded_ns = time.perf_counter_ns()
            if pipeline.arrived() == before:
                nap = min(2 * nap, _LONGEST_NAP)
        pipeline.ask_for_no_interrupt()

    # --- the end ---

    def last_look(self) -> tuple[Outcome, str]:
        """At the deadline: takes back what is there, and tells the outcome and the fault if any."""
        pipeline = self._pipeline
        try:
            pipeline.collect()
        except DeviceFault as error:
            return Outcome.BROKEN, str(error)
        done = not pipeline.in_flight and not pipeline.unpublished
        return (Outcome.RESTORED if done else Outcome.INCOMPLETE), ""

    def finish(self, outcome: Outcome, fault: str, elapsed_ns: int) -> Replayed:
        """Leaves the ring as its next user expects it, and tells what became of everything."""
        pipeline = self._pipeline
        pipeline.settle()
        if outcome is Outcome.RESTORED and pipeline.rejected:
            outcome = Outcome.REJECTED
        idle = outcome in (Outcome.RESTORED, Outcome.REJECTED)
        if idle:
            pipeline.leave()
        return Replayed(
            outcome=outcome,
            rejected=tuple(sorted(pipeline.rejected)),
            unanswered=tuple(sorted(pipeline.unanswered)),
            doorbells=pipeline.doorbells,
            elapsed_ns=elapsed_ns,
            next_index=pipeline.index if idle else None,
            fault=fault,
            standstill=self._standstill() if outcome is Outcome.INCOMPLETE else None,
            wrong_lengths=tuple(sorted(pipeline.wrong_lengths.items())),
        )

    def _standstill(self) -> Standstill:
        return Standstill(self._before, self._pipeline.standing(), self._first)
