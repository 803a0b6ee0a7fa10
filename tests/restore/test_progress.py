"""How far a replay has come, as somebody sees it who looks at any moment: never more than was."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.batches import vlans
from tests.support.devices import DEADLINE
from tests.support.marks import with_and_without_event_idx
from tests.support.stepped import SteppedDevice, nothing, stepped
from vdpad.restore.program import Program, encode
from vdpad.restore.progress import ANSWERED, Known, Progress
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import ACK_ERR, ACK_NONE, ACK_OK

COUNT = 203
RING = 16


def _replay(
    program: Program,
    progress: Progress,
    device: SteppedDevice,
    on_kick: Callable[[SteppedDevice], None],
) -> Replayed:
    async def run() -> Replayed:
        with stepped(device, nothing, on_kick) as queue:
            deadline = asyncio.get_running_loop().time() + DEADLINE
            return await replay(program, queue, deadline=deadline, poll_ns=0, progress=progress)

    return asyncio.run(run())


@with_and_without_event_idx
@pytest.mark.parametrize("refused", [(), (0,), (37, 38), (5, 100, 202), tuple(range(COUNT))])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("start_index", [0, 65500])
def test_at_no_moment_is_more_known_than_the_device_has_done(
    event_idx: bool, refused: tuple[int, ...], backwards: bool, start_index: int
) -> None:
    device = SteppedDevice(RING, event_idx=event_idx, start_index=start_index)
    program = encode(vlans(COUNT), device.geometry, event_idx=event_idx)
    progress = Progress.unshared(COUNT)
    served: dict[int, int] = {}
    moments: set[int] = set()

    def kicked(device: SteppedDevice) -> None:
        device.put_avail_event(device.words.available_index)
        chains = device.take()
        known = progress.known()
        assert known.doorbells == device.kicks - 1
        answered = set(range(COUNT)) - set(known.unanswered)
        assert answered <= served.keys()
        assert {at for at in answered if served[at] == ACK_ERR} == set(known.rejected)
        assert len(served) + len(chains) - len(answered) <= program.most_in_flight
        moments.add(len(answered))
        for chain in reversed(chains) if backwards else chains:
            at = int.from_bytes(chain.readable[2:], "little")
            served[at] = ACK_ERR if at in refused else ACK_OK
            device.complete(chain, ack=served[at])

    replayed = _replay(program, progress, device, kicked)
    assert replayed.outcome is (Outcome.REJECTED if refused else Outcome.RESTORED)
    assert progress.known() == Known(refused, (), replayed.doorbells)
    assert len(moments) > 10


def test_what_is_known_by_its_words() -> None:
    progress = Progress.unshared(6)
    assert progress.known() == Known((), (0, 1, 2, 3, 4, 5), 0)
    progress.words[ANSWERED] = 3
    progress.acks[:] = bytes([ACK_NONE, ACK_ERR, ACK_OK, ACK_NONE, ACK_OK, 7])
    assert progress.known() == Known((1,), (3, 5), 0)
    progress.acks[0] = 7
    assert progress.known() == Known((1,), (0, 3, 5), 0)
