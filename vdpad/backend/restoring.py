"""Giving a device what its guest had set: plan, program and replay on its own CVQ.

A device refuses the coalescing of a single queue before that queue is enabled, and forgets it when
it is (virtio 1.4, "Notifications Coalescing"). So these commands go last, once the data
queues are enabled; all others go before, so that no packet goes by settings that are not the
guest's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence, Set
from typing import Any

from vdpad.backend.faults import NotRestored
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Incompatible, plan
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, replay
from vdpad.restore.report import Report, joined, report
from vdpad.state.model import NetState
from vdpad.state.problems import Problem, summary
from vdpad.vhost_user.to_its_end import is_cancelled
from vdpad.virtio.commands import CoalVqSet, Command
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.rings import RingGeometry

# How long all of it may take, in seconds; the guest stands still meanwhile.
_DEADLINE = 10.0

_POLL_NS = 200_000


EnableDataQueues = Callable[[Set[int]], Awaitable[None]]
"""Enables the data queues, these among them where there are such."""


async def restore(
    state: NetState,
    queue: ControlQueue,
    geometry: RingGeometry,
    *,
    name: str,
    features: FeatureSet,
    config: NetConfig,
    enable: EnableDataQueues,
) -> Report:
    """Brings a device from its reset state to this one.

    Args:
        state: of the guest.
        queue: the device's, idle; so it is again afterwards.
        geometry: of its ring.
        name: of the back end, for the report.
        features: those negotiated with the device.
        config: its config space.
        enable: enables the data queues, called where a command waits for them.

    Raises:
        NotRestored: it does not take all of it. It must be reset.
        VdpadError: as of `enable`.
    """
    began = time.perf_counter_ns()
    planned = plan(state, Capabilities.of(features, config, geometry))
    if isinstance(planned, Incompatible):
        raise cannot_take(planned.problems)
    first = [each for each in planned.commands if not isinstance(each, CoalVqSet)]
    last = [each for each in planned.commands if isinstance(each, CoalVqSet)]
    done = await send(first, queue, geometry, name=name, widened=planned.widened, began=began)
    if not last:
        return done
    await enable({each.queue for each in last})
    try:
        return joined(done, await send(last, queue, geometry, name=name))
    except NotRestored as error:
        whole = None if error.report is None else joined(done, error.report)
        raise NotRestored(str(error), report=whole) from error


async def send(
    commands: Sequence[Command],
    queue: ControlQueue,
    geometry: RingGeometry,
    *,
    name: str,
    widened: tuple[str, ...] = (),
    began: int | None = None,
) -> Report:
    """Has a device carry out commands of ours; as of `restore`.

    Args:
        commands: what its features permit.
        queue, geometry, name: as of `restore`.
        widened: for the report.
        began: when preparing them did, in perf_counter_ns.
    """
    started = time.perf_counter_ns()
    program = encode(tuple(commands), geometry, event_idx=queue.ring.event_idx)
    prepare_us = (time.perf_counter_ns() - (began or started)) // 1000
    deadline = asyncio.get_running_loop().time() + _DEADLINE
    replayed = await replay(program, queue, deadline=deadline, poll_ns=_POLL_NS)
    done = report(name, program.commands, replayed, widened=widened, prepare_us=prepare_us)
    if done.outcome is not Outcome.RESTORED:
        raise NotRestored(_why(done, replayed.fault), report=done)
    return done


class Replays:
    """Those on one device that runs, of which there is one at a time."""

    def __init__(self) -> None:
        """There is none."""
        self._under_way: asyncio.Future[Report] | None = None
        self._given_up = ""

    def give_up(self, why: str) -> None:
        """Waits no more for the device, which will not answer."""
        self._given_up = why
        if self._under_way is not None:
            self._under_way.cancel()

    async def take(self, replay: Coroutine[Any, Any, Report]) -> Report:
        """Takes one, and returns what came of it. On cancellation it has ended.

        Raises:
            NotRestored: as of the replay; or the device was given up meanwhile.
        """
        self._under_way = asyncio.ensure_future(replay)
        try:
            return await self._under_way
        except asyncio.CancelledError:
            if not self._given_up or is_cancelled():
                raise
            raise NotRestored(self._given_up) from None
        finally:
            self._under_way = None


def cannot_take(problems: tuple[Problem, ...]) -> NotRestored:
    """What is raised for a state that does not fit the device."""
    return NotRestored(f"the device cannot take it: {summary(problems)}", problems=problems)


def _why(done: Report, fault: str) -> str:
    """What became of commands that were not all applied."""
    failed = [*done.rejected, *done.unanswered]
    first = f"; the first is {failed[0].command} {failed[0].arguments}" if failed else ""
    return (
        f"expected the device to take {done.commands} commands, it has taken {done.applied} "
        f"({done.outcome}{': ' + fault if fault else ''}){first}"
    )
