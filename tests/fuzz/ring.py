"""A replay on a device that does whatever it likes: no ack is told that the device did not write.

The bytes say what ring there is (split or packed, with IN_ORDER or without), which commands, and
then what the device does whenever its driver waits. The device itself watches that its driver
leaves alone what is the device's (stepped.py, packed_stepped.py).
"""

import asyncio
import os
from collections.abc import Iterator
from unittest import mock

from tests.support.clock import JumpingLoop, run
from tests.support.packed_stepped import PackedSteppedDevice
from tests.support.stepped import SteppedDevice, Taken, stepped
from vdpad.restore.program import encode
from vdpad.restore.progress import Progress
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import ACK_ERR, ACK_OK, Command, MacAddrSet, RxPromisc, VlanAdd

_MAX_COMMANDS = 60
# Both of a packed descriptor's marks, which say that it is not available.
_RETURNED = 1 << 7 | 1 << 15
# Each wait is 50 ms of the jumping loop's: so many steps of the device.
_DEADLINE = 80 * 0.05


class _Device:
    """What a hostile device has done so far."""

    def __init__(self, device: SteppedDevice, choices: Iterator[int]) -> None:
        self.device = device
        self._choices = choices
        self.acks: dict[bytes, list[int]] = {}
        """By command, each ack that was written for it."""

    def step(self, _: SteppedDevice) -> None:
        """Does what the next bytes say. Where there are none, nothing more comes of waiting."""
        device = self.device
        in_flight = device.take()
        what, value = next(self._choices, None), next(self._choices, 0)
        if what is None:
            _wait_no_longer()
            return
        match what % 8:
            case 0 | 1 | 2 if in_flight:
                for chain in in_flight[: 1 + value % len(in_flight)]:
                    ack = ACK_OK if what < 128 else value % 3
                    self.acks.setdefault(chain.readable, []).append(ack)
                    device.complete(chain, ack=ack, length=1 if what < 200 else value)
            case 3 if in_flight:
                chain = in_flight[value % len(in_flight)]
                self.acks.setdefault(chain.readable, []).append(ACK_OK)
                device.complete(chain)
            case 4 if what >= 128 and in_flight:
                self._together(in_flight[: 1 + value % len(in_flight)])
            case 4:
                device.put(value, what)
            case _ if isinstance(device, PackedSteppedDevice):
                _scribble(device, what, value)
            case 5:
                device.show_used_index(value << 8 | what)
            case 6:
                device.put_used_flags(value & 1)
            case 7:
                device.put_avail_event(value << 8 | what)

    def _together(self, chains: list[Taken]) -> None:
        """Returns them as one batch, whatever was negotiated."""
        for chain in chains:
            self.acks.setdefault(chain.readable, []).append(ACK_OK)
        self.device.complete_together(chains)


def _scribble(device: PackedSteppedDevice, what: int, value: int) -> None:
    """Writes where a packed ring's device may."""
    match what % 8:
        case 5:
            # Never as if it were available: the device itself goes by that.
            device.put_marks(value, _RETURNED * (what >> 7))
        case 6:
            (device.ask_always, device.ask_never)[value & 1]()
        case 7:
            device.ask_at(value << 8 | what)


def _wait_no_longer() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    loop.jump(_DEADLINE)


def _keep_the_processor() -> None:
    """No device shares it, and whoever else does would be given it each time."""


@mock.patch.object(os, "sched_yield", _keep_the_processor)
def one(data: bytes) -> None:
    """A ring, commands and a device's doings."""
    choices = iter(data)
    shape, start, count = (next(choices, 0) for _ in range(3))
    commands = tuple(map(_command, range(count % _MAX_COMMANDS)))
    kind = PackedSteppedDevice if shape & 0x40 else SteppedDevice
    size = 2 << shape % 5
    device = kind(
        size,
        event_idx=bool(shape & 0x80),
        start_index=start % (2 * size) if shape & 0x40 else start << 8,
        buffers=64 << shape % 7,
        in_order=bool(shape & 0x20),
    )
    hostile = _Device(device, choices)
    progress = Progress.unshared(len(commands))
    program = encode(commands, device.geometry, event_idx=device.event_idx)

    async def replayed() -> Replayed:
        with stepped(device, hostile.step) as queue:
            return await replay(program, queue, deadline=_DEADLINE, poll_ns=0, progress=progress)

    _check(run(replayed()), commands, hostile.acks, progress)


def _command(number: int) -> Command:
    """Each another one, since they are known by their bytes."""
    match number % 7:
        case 0:
            return MacAddrSet(bytes([2, 0, 0, 0, 0, number]))
        case 1 if number < 7:
            return RxPromisc(on=True)
    return VlanAdd(number)


def _check(
    told: Replayed, commands: tuple[Command, ...], acks: dict[bytes, list[int]], progress: Progress
) -> None:
    rejected, unanswered = {*told.rejected}, {*told.unanswered}
    assert len(rejected) + len(unanswered) == len(told.rejected) + len(told.unanswered)
    assert not rejected & unanswered
    applied = {*range(len(commands))} - rejected - unanswered
    for at, command in enumerate(commands):
        written = acks.get(command.encode(), [])
        assert at not in applied or ACK_OK in written, (at, told)
        assert at not in rejected or ACK_ERR in written, (at, told)
    if told.outcome is Outcome.RESTORED:
        assert not rejected | unanswered
    known = progress.known()
    assert {*range(len(commands))} - {*known.rejected} - {*known.unanswered} <= applied
