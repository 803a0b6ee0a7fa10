"""Where sessions are held, and what must hold of each, whatever its front end did.

It ends within reason, and by an error of the room's own if by any. What was answered were whole
replies to what was asked, in its order. No task, descriptor or mapping is left.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.descriptors import open_descriptors
from tests.support.waiting import GUARD
from tests.vhost_user.conftest import mappings
from tests.vhost_user.front_end import HEADER, REPLY, VERSION
from tests.vhost_user.fuzz.player import Player
from tests.vhost_user.fuzz.script import Cancel, HangUp, Message, Script
from vdpad.errors import VdpadError
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.front_ends import FrontEnds


@dataclass(frozen=True, slots=True)
class Held:
    """What a session came to."""

    error: VdpadError | None
    answered: bytes
    refusals: tuple[str, ...]


async def never() -> None:
    """Does not return."""
    await asyncio.Event().wait()


class Bench:
    """A device, and one session after the other."""

    def __init__(
        self, device: VhostUserDevice, stuck: Callable[[], Awaitable[object]] = never
    ) -> None:
        """
        Args:
            device: that front ends are given.
            stuck: returns when a session waits for what only its front end could do.
        """
        self._stuck = stuck
        self._refusals: list[str] = []
        self._front_ends = FrontEnds(device, self._refused)

    async def hold(self, script: Script) -> Held:
        """Plays a script and judges it.

        Raises:
            Exception: whatever is no error of the room's, and what judges say.
        """
        self._refusals.clear()
        async with nothing_left():
            player = Player(self._front_ends)
            try:
                async with asyncio.timeout(GUARD):
                    await player.play(script)
                    await self._until_answered(player)
            finally:
                player.hang_up()
            async with asyncio.timeout(GUARD):
                await asyncio.wait([player.task])
        _judge_answers(script, player.answered)
        return Held(_error(player.task, script), player.answered, tuple(self._refusals))

    async def _until_answered(self, player: Player) -> None:
        """Waits for the session's end, or until only the front end could go on."""
        stuck = asyncio.ensure_future(self._stuck())
        await asyncio.wait([player.task, stuck], return_when=asyncio.FIRST_COMPLETED)
        if player.task.done():
            await asyncio.wait([player.reading])
        stuck.cancel()
        await asyncio.wait([stuck])

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
async def nothing_left() -> AsyncIterator[None]:
    """Fails where a block leaves a descriptor, a mapping or a task, or an error that none took."""
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


def _judge_answers(script: Script, answered: bytes) -> None:
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
