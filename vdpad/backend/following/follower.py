"""Following: what QEMU shows of its guest's filter is what a device is told.

    UNKNOWN ──a filter that QEMU shows, told to the device──▶ FOLLOWED
       ▲                                                          │
       └── each start of the device, a monitor that is lost, ─────┘
           a filter that is none or that the device refuses

While it is unknown the device is open wide: it passes on more than its guest asked for, never less.
One task asks the monitor and tells the device, so what QEMU has shown last is told last. It asks
when the monitor says so, at each start of the device, since a guest that begins anew says nothing,
and at each stop, so that what is captured is what the guest has left. What it was told before a
start is not the next guest's, and is dropped.

A monitor that is lost is looked for again, after a pause that grows; at once when the device
starts. So is one that is not there yet: QEMU may begin after this process. Which it is, and why, is
told when it changes; of a device that does not run, why the monitor is still looked for.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, Protocol

from vdpad.backend.following.filter import FOLLOWED, Filter, NotFollowed, filter_of
from vdpad.backend.following.monitor import Monitor, MonitorLost, connected
from vdpad.backend.process_events import FilterFollowed, FilterUnknown, MonitorAwaited
from vdpad.errors import VdpadError
from vdpad.service.events.announcing import Announce
from vdpad.state.formats.rx_filter import RxFilter, found_in
from vdpad.state.found import Found, Missing
from vdpad.virtio.features import Feature, FeatureSet

# In seconds: how long to wait for a monitor that was lost, and how often a guest that changes its
# filter all the time has it followed.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_PACE = 0.02

_ALWAYS: FeatureSet = frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_MAC_ADDR})
_PARTS = ("mac", "rx", "mac_table", "vlans")
_NOT_ASKED = "QEMU's monitor was not asked yet"


class NoSuchCard(VdpadError):
    """Which of QEMU's cards is meant cannot be told."""


class FilteredQueue(Protocol):
    """The control queue of a device that runs, and whose VMM keeps the guest's."""

    @property
    def features(self) -> FeatureSet:
        """Those negotiated with the device."""

    async def follow(self, wanted: Filter) -> None:
        """Has the device filter so.

        Raises:
            NotFollowed: it does not, and is open wide.
        """

    async def open_wide(self) -> None:
        """Has the device receive everything."""


class FollowedDevice(Protocol):
    """What is asked of the device."""

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped."""

    @property
    def queue_pairs(self) -> int:
        """That the guest uses, also while it is stopped."""

    @property
    def kept_queue(self) -> FilteredQueue | None:
        """None where it does not run, or its guest has a control queue."""


class Follower:
    """Follows one card, from `run` until that is cancelled."""

    def __init__(
        self, name: str, path: Path, card: str | None, device: FollowedDevice, announce: Announce
    ) -> None:
        """
        Args:
            name: the back end's.
            path: of the monitor's socket.
            card: by the id of the card or of its netdev; None for the only one.
            device: the back end's.
            announce: told of which filter the device has.
        """
        self._name = name
        self._path = path
        self._named = card
        self._device = device
        self._announce = announce
        self._news = asyncio.Event()
        self._starts = 0
        self._shown: RxFilter | None = None
        self._unknown = _NOT_ASKED
        """Why what QEMU shows is not known."""
        self._told: str | None = None
        """What was announced of this run of the device: a reason, or "" for a filter."""
        self._awaited = ""
        """Why the monitor is looked for, as was announced; "" once it was found."""

    @property
    def follows(self) -> bool:
        """Whether the device runs with its guest's filter."""
        return self._told == ""

    def started(self) -> None:
        """The device has started, and is open wide."""
        self._starts += 1
        self._shown, self._unknown, self._told = None, _NOT_ASKED, None
        self._news.set()

    def stopped(self) -> None:
        """The device was stopped."""
        self._told = None
        self._news.set()

    async def run(self) -> NoReturn:
        """Follows for ever."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with connected(self._path, self._news.set) as monitor:
                    card = await self._choose(monitor)
                    pause, self._awaited = _FIRST_PAUSE, ""
                    await self._follow(monitor, card)
            except VdpadError as error:
                await self._lose(str(error))
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)

    def found(self, found: Found | None) -> Found | None:
        """What a guest has set, its filter included where its VMM has kept its commands.

        Args:
            found: by the guest's commands.
        """
        if found is None or found.state is None or Feature.CTRL_VQ in found.state.features:
            return found
        if self._shown is None:
            missing = (Missing(part, self._unknown) for part in _PARTS)
            return replace(found, missing=(*found.missing, *missing))
        features = found.state.features - FOLLOWED | _features_by(self._shown)
        shown = found_in(self._shown, features)
        pairs = self._device.queue_pairs if Feature.MQ in features else None
        state = shown.state and shown.state.model_copy(update={"queue_pairs": pairs})
        missing = (each for each in shown.missing if each.part != "queue_pairs")
        return replace(shown, state=state, missing=(*found.missing, *missing))

    # --- the task ---

    async def _follow(self, monitor: Monitor, card: str) -> NoReturn:
        while True:
            self._news.clear()
            starts = self._starts
            shown = await monitor.rx_filters(card)
            if len(shown) != 1:
                raise MonitorLost(f"{self._path}: expected one card {card}, got {len(shown)}")
            if starts == self._starts:
                await self._tell_device(shown[0])
            await asyncio.sleep(_PACE)
            await self._news.wait()

    async def _choose(self, monitor: Monitor) -> str:
        cards = [each.name for each in await monitor.rx_filters()]
        if self._named is None:
            fitting: Sequence[str] = cards
        elif self._named in cards:
            fitting = [self._named]
        else:
            fitting = [each for each in cards if await monitor.netdev_of(each) == self._named]
        if len(fitting) == 1:
            return fitting[0]
        expected = "one network card, or --nic" if self._named is None else f"one of {self._named}"
        there = ", ".join(cards) or "none"
        raise NoSuchCard(f"{self._path}: expected {expected}; cards with a receive filter: {there}")

    async def _tell_device(self, shown: RxFilter) -> None:
        self._shown = shown
        queue = self._device.kept_queue
        if queue is None:
            return
        starts = self._starts
        try:
            await queue.follow(filter_of(shown, queue.features))
        except NotFollowed as error:
            reason = str(error)
        else:
            reason = ""
        if starts == self._starts:
            self._tell(reason)

    async def _lose(self, reason: str) -> None:
        self._unknown = reason
        if self._device.is_running:
            self._shown = None
        elif reason != self._awaited:
            self._awaited = reason
            self._announce(MonitorAwaited(self._name, reason))
        queue = self._device.kept_queue
        if queue is not None:
            await queue.open_wide()
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        """Tells what the device's filter is; nothing that was told already."""
        if reason == self._told or self._device.kept_queue is None:
            return
        self._told = reason
        if reason:
            self._announce(FilterUnknown(self._name, reason))
        else:
            assert self._shown is not None
            self._announce(FilterFollowed(self._name, self._shown.name, str(self._path)))


def _features_by(shown: RxFilter) -> FeatureSet:
    """The features that a guest with this filter uses; QEMU tells no others."""
    features = set(_ALWAYS)
    if shown.vlan != "all":
        features.add(Feature.CTRL_VLAN)
    if shown.nobcast or shown.unicast != "normal" or shown.multicast == "none":
        features.add(Feature.CTRL_RX_EXTRA)
    return frozenset(features)
