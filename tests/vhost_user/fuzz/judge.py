"""What must hold of a session, whatever its front end did; and a device that holds the room to it.

A session ends within reason, and by an error of the room's own if by any. Its device was asked for
what device.py permits, and is stopped. What was answered were whole replies to what was asked, in
its order. No task, descriptor or mapping is left. A front end that does everything right is served
next, and gets byte for byte what it would have got from a device that has seen nobody before.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Self

from tests.support.descriptors import open_descriptors
from tests.vhost_user.conftest import mappings
from tests.vhost_user.front_end import GUARD, HEADER, REPLY, VERSION
from tests.vhost_user.fuzz.mutations import mutated
from tests.vhost_user.fuzz.player import Player
from tests.vhost_user.fuzz.script import Cancel, HangUp, Message, Script, Shrink, record
from tests.vhost_user.recording_device import RecordingDevice
from vdpad.errors import VdpadError
from vdpad.vhost_user.device import GuestVring, Start
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.split_ring import Region

_UNWILLING = (
    *("add_memory", "remove_memory", "start", "enable", "set_call", "stop"),
    *("set_config", "reset", "save", "load"),
)


class Fault(AssertionError):
    """A session did what no session may."""


class JudgingDevice(RecordingDevice):
    """A device that fails where it is asked for what device.py does not permit."""

    def __init__(self, queues: int) -> None:
        super().__init__(queues=queues)
        self.touches_memory = True
        """Whether its files are as long as they were when they came."""

    async def add_memory(self, mapped: MappedRegion) -> None:
        if self.touches_memory:
            mapped.view[0] = mapped.view[-1] = 0xFF
        await super().add_memory(mapped)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        used = [vring.addresses.parts().values() for vring in self._vrings.values()]
        for part in (part for parts in used for part in parts):
            assert part.end <= mapped.guest.iova or part.iova >= mapped.guest.end
        await super().remove_memory(mapped)

    async def start(self, start: Start) -> None:
        assert start.features <= self.features
        indices = [vring.index for vring in start.vrings]
        assert indices
        assert indices == sorted({*indices} & {*range(self.queues)})
        for vring in start.vrings:
            assert 0 <= vring.base <= 0xFFFF
            for part in vring.addresses.parts().values():
                self._check_part(start.memory, part)
            for fd in (vring.kick, vring.call, vring.error):
                assert fd is None or os.fstat(fd)
        await super().start(start)

    def _check_part(self, memory: GuestMemory, part: Region) -> None:
        try:
            memory.check(part.iova, part.size)
            if self.touches_memory:
                memory.write(part.iova, memory.read(part.iova, part.size))
        except VdpadError as error:
            # Else it would pass for what the device says of its own.
            raise AssertionError(f"expected a ring within the memory, got {part}") from error

    async def enable(self, index: int, enabled: bool) -> None:
        assert index in self._vrings
        await super().enable(index, enabled)

    async def set_call(self, index: int, call: int | None) -> None:
        assert index in self._vrings
        assert call is None or os.fstat(call)
        await super().set_call(index, call)

    async def stop(self) -> Mapping[int, int]:
        for vring in self._vrings.values():
            for fd in (vring.kick, vring.error):
                assert fd is None or os.fstat(fd)
        return await super().stop()

    async def _asked(self, what: str, how: str = "") -> None:
        if what != "remove_memory":
            # Whoever cancels does it here too, but for what must be done all the same.
            await asyncio.sleep(0)
        await super()._asked(what, how)

    @property
    def _vrings(self) -> dict[int, GuestVring]:
        return {} if self.started is None else {each.index: each for each in self.started.vrings}


@dataclass(frozen=True, slots=True)
class Held:
    """What a session came to."""

    error: VdpadError | None
    answered: bytes
    refusals: tuple[str, ...]


class Bench:
    """A device, and one session after the other."""

    def __init__(self, queues: int) -> None:
        self.device = JudgingDevice(queues)
        self._refusals: list[str] = []
        self._front_ends = FrontEnds(self.device, self._refused)

    async def hold(self, script: Script) -> Held:
        """Plays a script, and sees that nothing is left of it.

        Raises:
            Exception: whatever is no error of the room's, and what judges say.
        """
        self._refusals.clear()
        async with _nothing_left():
            player = Player(self._front_ends)
            try:
                async with asyncio.timeout(GUARD):
                    await player.play(script)
                    await self._until_answered(player)
            finally:
                player.hang_up()
            async with asyncio.timeout(GUARD):
                await asyncio.wait([player.task])
        assert self.device.started is None
        if "remove_memory" in self.device.unwilling:
            self.device.mapped.clear()
        assert self.device.mapped == []
        return Held(_error(player.task, script), player.answered, tuple(self._refusals))

    async def _until_answered(self, player: Player) -> None:
        """Waits for the session's end, or until only the front end could go on."""
        waiting = asyncio.create_task(self.device.until(lambda: self.device.waits_for_state))
        await asyncio.wait([player.task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if player.task.done():
            await asyncio.wait([player.reading])
        waiting.cancel()
        await asyncio.wait([waiting])

    def _refused(self, request: str, error: VdpadError) -> None:
        assert str(error)
        self._refusals.append(f"{request}: {error}")


def _error(task: asyncio.Task[None], script: Script) -> VdpadError | None:
    if task.cancelled():
        assert Cancel() in script.steps
        return None
    error = task.exception()
    if error is not None and not isinstance(error, VdpadError):
        raise error
    return error


@asynccontextmanager
async def _nothing_left() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    said: list[str] = []
    loop.set_exception_handler(lambda _, context: said.append(repr(context)))
    before = _there()
    try:
        yield
        await asyncio.sleep(0)
        changed = before ^ _there()
        assert not changed, changed
    finally:
        loop.set_exception_handler(None)
    assert said == []


def _there() -> set[object]:
    """Descriptors, mappings and tasks."""
    return {*open_descriptors().items(), *mappings(), *asyncio.all_tasks()}


def judge_answers(script: Script, answered: bytes) -> None:
    """Sees that all are replies, whole, and to what was asked, in its order."""
    asked = iter(_requests(b"".join(it.data for it in script.steps if isinstance(it, Message))))
    is_cut = any(isinstance(step, HangUp | Cancel) for step in script.steps)
    while answered:
        if is_cut and not _is_whole(answered):
            return
        request, flags, size = HEADER.unpack_from(answered)
        assert flags == VERSION | REPLY
        assert len(answered) >= HEADER.size + size
        assert request in asked
        answered = answered[HEADER.size + size :]


def _is_whole(data: bytes) -> bool:
    return len(data) >= HEADER.size and len(data) >= HEADER.size + HEADER.unpack_from(data)[2]


def _requests(data: bytes) -> Iterator[int]:
    """What a back end takes from a stream, as long as it can."""
    while _is_whole(data):
        request, _, size = HEADER.unpack_from(data)
        yield request
        data = data[HEADER.size + size :]


# --- many of them ---


class Fuzzer:
    """Sessions of one seed, by number; each is the same whenever it is held."""

    def __init__(self, seed: int, scripts: tuple[Script, ...], honest: Mapping[str, Held]) -> None:
        self._seed = seed
        self._scripts = scripts
        self._honest = honest

    @classmethod
    async def record(cls, seed: int) -> Self:
        """Records what goes well, and how it is answered."""
        scripts = await record()
        return cls(
            seed, scripts, {each.name: await Bench(each.queues).hold(each) for each in scripts}
        )

    async def hold(self, number: int) -> None:
        """A mutated session, and an honest one after it.

        Raises:
            Fault: one of them did what no session may.
        """
        random = Random(f"{self._seed} {number}")
        script = mutated(random, self._scripts)
        bench = Bench(script.queues)
        try:
            await self._mutated(random, bench, script)
            await self._honest_after(bench, script.name)
        except Exception as error:
            raise Fault(f"session {number} of seed {self._seed}: {script}") from error

    async def _mutated(self, random: Random, bench: Bench, script: Script) -> None:
        device = bench.device
        device.unwilling = {*random.sample(_UNWILLING, random.choice((0, 0, 0, 1, 2)))}
        device.can_move = random.random() < 0.9
        device.needs_reset = random.random() < 0.1
        device.touches_memory = not any(isinstance(step, Shrink) for step in script.steps)
        held = await bench.hold(script)
        judge_answers(script, held.answered)

    async def _honest_after(self, bench: Bench, name: str) -> None:
        device = bench.device
        device.unwilling, device.can_move, device.needs_reset = set(), True, False
        device.touches_memory = True
        (script,) = (each for each in self._scripts if each.name == name)
        assert await bench.hold(script) == self._honest[name]
