"""A switch: another device takes the place of the one in use, under a guest that runs.

    prepare     the other is opened, and must offer what the first does
                it is given the guest's memory, region by region
                the state is rehearsed on it                        the guest runs on meanwhile
    take over   the first leaves the rings: suspended, its bases read, reset
                the other takes them where they stand: replay, data queues, a kick each
    put away    the one that is not in use gives the memory back, and is closed

How it works. All that can take long, and nearly all that can fail, comes before anything is taken
from the device in use. The front end is not told, and may do anything meanwhile, also stop the
device or go away: what holds is looked at again when the switch has its calls wait
(device_in_use.py). Where the device is stopped then, the other is in its place at once, for the
next start. It has been tried with what that start will give it: where the guest has set something
since, or a state was loaded, it is rehearsed once more.

Where taking over fails, the first is started again, with the rings as they stand. Only where it
does not come up either, or cannot begin rings but at 0, the guest is told that its device needs a
reset.

A guest that was moved to another port announces itself, as one that has moved (announcement.py).
What is logged goes on being logged: what the first has written is marked when it has left.

A switch that nobody waits for any more goes on. There is one at a time.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from vdpad.backend.device_in_use import DeviceInUse
from vdpad.backend.driven_device import DrivenDevice
from vdpad.backend.driving import left_at
from vdpad.backend.events import DeviceSwitched, SwitchFailed
from vdpad.backend.faults import (
    BackEndError,
    CannotSwitch,
    MayNotSwitch,
    NotRestored,
    SwitchUnderWay,
)
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.moving.rehearsal import check, rehearse
from vdpad.backend.moving.successor import check_successor, with_address_of
from vdpad.backend.owned_device import OwnedDevice
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.vhost_vdpa.errors import MemoryLimit, NotPermitted
from vdpad.restore.report import Report
from vdpad.service.threads import give_back, on_a_thread
from vdpad.state.model import NetState
from vdpad.vhost_user.device import Start
from vdpad.virtio.features import Feature

# How long the other device may take to open, in seconds. Stops one that never does from keeping all
# further switches, and the back end's end.
_PATIENCE = 30.0

Opener = Callable[[], ShadowedDevice]
"""Opens a device, on a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchReport(Report):
    """What a switch came to: the replay on the device that has taken over."""

    paused_us: int
    """How long the data queues stood still; 0 where no guest ran."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a rehearsal on the other came to."""

    state: NetState
    report: Report


class Switching:
    """The switches of one back end."""

    def __init__(
        self,
        in_use: DeviceInUse,
        turn: asyncio.Lock,
        settings: GuestSettings,
        name: str,
        listeners: Listeners,
    ) -> None:
        """
        Args:
            in_use: the device.
            turn: of whoever brings it up.
            settings: what the guest has set.
            name: of the back end.
            listeners: who is told.
        """
        self._in_use = in_use
        self._turn = turn
        self._settings = settings
        self._name = name
        self._listeners = listeners
        self._under_way: asyncio.Task[SwitchReport] | None = None
        self._closing: set[asyncio.Future[None]] = set()
        """Of devices that were opened too late."""

    async def close(self) -> None:
        """Waits for the end of a switch that is under way."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def switch(self, opener: Opener) -> SwitchReport:
        """Puts another device in the place of the one in use. Goes on if it is cancelled.

        Args:
            opener: opens the other.

        Raises:
            SwitchUnderWay: there is a switch already.
            NotRestored: the other cannot take the first's place, or does not take the state; the
                first goes on.
            MayNotSwitch: this process may not pin the guest's memory twice; the first goes on.
            CannotSwitch: the same, for any other reason; or neither goes on, which it says.
            VdpadError: the other cannot be opened; the first goes on.
        """
        if self._under_way is not None:
            raise SwitchUnderWay("expected no other switch to be under way, there is one; wait")
        task = self._under_way = asyncio.create_task(self._switch(opener), name="switch")
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[SwitchReport]) -> None:
        self._under_way = None
        if not task.cancelled():
            # Whoever has asked may have gone.
            task.exception()

    async def _switch(self, opener: Opener) -> SwitchReport:
        before = self._in_use.driven.owned
        try:
            successor = await self._open(opener, before)
            done = await self._replace(before, successor)
        except VdpadError as error:
            self._listeners.announce(SwitchFailed(self._name, str(error)))
            raise
        names = (before.name, successor.owned.name)
        self._listeners.announce(DeviceSwitched(self._name, *names, done.paused_us))
        return done

    async def _open(self, opener: Opener, before: OwnedDevice) -> DrivenDevice:
        owned = await OwnedDevice.open(
            await self._opened(opener),
            shared_address_space=before.offer.may_share_address_space,
            follows_filter=before.offer.follows_filter,
            card_mac=before.offer.card_mac,
            in_order=before.works_in_order,
        )
        offer = with_address_of(before.offer, owned.offer)
        return DrivenDevice(
            replace(owned, offer=offer), self._settings, self._name, self._listeners
        )

    async def _opened(self, opener: Opener) -> ShadowedDevice:
        opened = on_a_thread(opener, "open device")
        await asyncio.wait([opened], timeout=_PATIENCE)
        if not opened.done():
            opened.add_done_callback(self._close_late)
            raise CannotSwitch(
                f"expected the other device to open within {_PATIENCE:g} s, it did not; see "
                "whether its driver hangs, or the file system of its node's path"
            )
        return opened.result()

    def _close_late(self, opened: "asyncio.Future[ShadowedDevice]") -> None:
        if opened.exception() is None:
            closing = asyncio.ensure_future(give_back(opened.result().close, "close device"))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _replace(self, before: OwnedDevice, successor: DrivenDevice) -> SwitchReport:
        """Prepares and takes over; puts away whichever is not in use afterwards."""
        in_use, first = self._in_use, self._in_use.driven
        in_use.beside = successor
        try:
            check_successor(before.offer, successor.owned.offer)
            await self._map(successor)
            tried = await self._rehearse(successor)
            async with in_use.serving, self._turn:
                # What has come since.
                await self._map(successor)
                done = await self._take_over(first, successor, tried)
                in_use.driven, in_use.beside = successor, first
                self._listeners.taken_over()
        except _NeitherGoesOn:
            raise
        except VdpadError as error:
            raise _with_the_first(error, before.name) from error
        finally:
            await self._put_away()
        return done

    # --- prepare ---

    async def _map(self, successor: DrivenDevice) -> None:
        """Lets it reach all of the guest's memory, which may come and go meanwhile."""
        in_use = self._in_use
        while True:
            async with in_use.mapping:
                lacks = in_use.driven.memory.mapped - successor.memory.mapped
                if not lacks:
                    return
                await successor.memory.add(min(lacks, key=lambda each: each.guest))

    async def _rehearse(self, successor: DrivenDevice, before: _Tried | None = None) -> _Tried:
        """Tries on it what the guest has set; where nothing is known, that it comes up.

        Args:
            successor: the other device.
            before: what was tried already, and is not tried again if it is the same.
        """
        nothing = NetState(version=1, features=frozenset({Feature.VERSION_1}))
        state = self._settings.to_restore() or nothing
        if before is not None and before.state == state:
            return before
        check(state, successor.owned.offer)
        running = self._in_use.driven.lifecycle.running
        rehearsed = await rehearse(
            state,
            successor.owned,
            name=self._name,
            behind=self._in_use.driven.memory.marking.end,
            start=None if running is None else running.start,
        )
        return _Tried(state, rehearsed.report)

    # --- take over ---

    async def _take_over(
        self, first: DrivenDevice, successor: DrivenDevice, tried: _Tried
    ) -> SwitchReport:
        successor.memory.marking.go_on_from(first.memory.marking)
        running = first.lifecycle.running
        if running is None:
            return _report((await self._rehearse(successor, tried)).report, 0)
        if first.lifecycle.failure:
            raise CannotSwitch(
                "expected a guest whose device works, it was told that its device needs a reset "
                f"({first.lifecycle.failure}); reset the guest's device"
            )
        _check_leaves(first.owned, running.start)
        began = time.perf_counter_ns()
        await self._hand_over(first, successor, running.start)
        paused_us = (time.perf_counter_ns() - began) // 1000
        return _report(successor.lifecycle.report or tried.report, paused_us)

    async def _hand_over(self, first: DrivenDevice, successor: DrivenDevice, start: Start) -> None:
        """From the one to the other; back again where that fails."""
        settings = self._settings
        had_moved = settings.has_moved
        try:
            await first.lifecycle.leave()
            settings.has_moved = True
            await self._give(successor, start)
        except BaseException as error:
            settings.has_moved = had_moved
            await self._go_back(first, start, error)
            raise

    async def _give(self, driven: DrivenDevice, start: Start) -> None:
        """Starts a device with these rings, as the one before it has left them."""
        await driven.lifecycle.take_over(left_at(start, self._settings.bases))

    async def _go_back(self, first: DrivenDevice, start: Start, error: BaseException) -> None:
        try:
            await self._give(first, start)
        except VdpadError as again:
            why = f"{error}; nor does {first.owned.name} go on: {again}; reset the guest's device"
            first.lifecycle.lose(_NeitherGoesOn(why))
            raise _NeitherGoesOn(why) from again
        self._listeners.taken_over()

    # --- put away ---

    async def _put_away(self) -> None:
        """Closes the device that is not in use; what it says to that changes nothing any more."""
        in_use = self._in_use
        unused = in_use.beside
        assert unused is not None
        for mapped in unused.memory.mapped:
            with suppress(VdpadError):
                async with in_use.mapping:
                    await unused.memory.remove(mapped)
        in_use.beside = None
        with suppress(VdpadError):
            await unused.close()


def _check_leaves(owned: OwnedDevice, start: Start) -> None:
    if not owned.tells_bases(start.features):
        raise CannotSwitch(
            f"{owned.name}: expected a device that tells where it leaves its queues, it cannot be "
            "suspended, and nobody says that it works in order; start the back end with --in-order "
            "if it does, or stop the guest first"
        )


class _NeitherGoesOn(CannotSwitch):
    """Neither device serves the guest."""


def _with_the_first(error: VdpadError, name: str) -> BackEndError:
    """The error of a switch that has changed nothing."""
    why = f"{error}; {name} goes on as before"
    if isinstance(error, NotRestored):
        return NotRestored(why, problems=error.problems, report=error.report)
    if isinstance(error, NotPermitted | MemoryLimit):
        return MayNotSwitch(why)
    return CannotSwitch(why)


def _report(report: Report, paused_us: int) -> SwitchReport:
    told = {each.name: getattr(report, each.name) for each in fields(Report)}
    return SwitchReport(**told, paused_us=paused_us)
