"""The replay beside a device in another process, as beside real hardware: both work at once."""

import asyncio

from tests.support.batches import mixed, settings_after
from tests.support.device_process import device_process
from tests.support.devices import config, geometry_of
from tests.support.marks import with_and_without_event_idx
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentQueue
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay

COMMANDS = mixed(4100)

# Whoever waits for so long waits for a device that does not work at all.
_FOR_EVER = 300.0


class _Awake(LentQueue):
    """Whoever waits for an interrupt here has not looked."""

    async def called(self, seconds: float) -> None:
        raise AssertionError("the replay slept, although it was to look")


async def _replay(
    kind: type[LentQueue], poll_seconds: float, *, event_idx: bool, interrupts: bool
) -> tuple[Replayed, dict[str, object]]:
    geometry = await geometry_of(config(ring_size=64))
    with device_process(ring_size=64, event_idx=event_idx, interrupts=interrupts) as lender:
        queue = kind(geometry, lender.descriptors, Indices(), event_idx=event_idx)
        try:
            replayed = await replay(
                encode(COMMANDS, geometry, event_idx=event_idx),
                queue,
                deadline=asyncio.get_running_loop().time() + _FOR_EVER,
                poll_ns=int(poll_seconds * 1e9),
            )
            return replayed, lender.held()
        finally:
            queue.close()


def _assert_restored(replayed: Replayed, held: dict[str, object], *, event_idx: bool) -> None:
    assert replayed.outcome is Outcome.RESTORED
    assert replayed.next_index == len(COMMANDS)
    assert held == settings_after(config(event_idx=event_idx), COMMANDS)


@with_and_without_event_idx
def test_looking_is_enough_where_the_device_works_meanwhile(event_idx: bool) -> None:
    main = _replay(_Awake, _FOR_EVER, event_idx=event_idx, interrupts=False)
    _assert_restored(*asyncio.run(main), event_idx=event_idx)


@with_and_without_event_idx
def test_sleeping_is_enough_where_nobody_looks(event_idx: bool) -> None:
    main = _replay(LentQueue, 0.0, event_idx=event_idx, interrupts=True)
    _assert_restored(*asyncio.run(main), event_idx=event_idx)


@with_and_without_event_idx
def test_a_short_look_and_then_an_interrupt_is_enough(event_idx: bool) -> None:
    main = _replay(LentQueue, 0.000_05, event_idx=event_idx, interrupts=True)
    _assert_restored(*asyncio.run(main), event_idx=event_idx)
