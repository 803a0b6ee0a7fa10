"""A device that runs: from its DRIVER_OK to its stop.

What comes in which order, and why, device_lifecycle.py says. Here is what there is meanwhile: the
device's own CVQ, with one user at a time, the replay first and then the shadow, or what stands for
it where the VMM keeps the guest's (kept_queue.py); and which data queues the device works on.
"""

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

from vdpad.backend.driving import (
    control_vring,
    suspended_at,
    used_index,
    with_call,
    with_enabled,
)
from vdpad.backend.faults import BackEndError
from vdpad.backend.forwarder import Forwarder, Forwards
from vdpad.backend.kept_queue import KeptQueue, opening
from vdpad.backend.marking import Wrote
from vdpad.backend.moving.announcement import Announcement, Announcing
from vdpad.backend.relaying import DataQueues, Relaying
from vdpad.backend.restoring import Replays, restore, send
from vdpad.backend.shadow import Shadow
from vdpad.backend.steps import Steps
from vdpad.errors import VdpadError
from vdpad.queues.eventfds import EventfdSender, check_eventfd, kicks_that_do_not_block
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.restore.report import Report
from vdpad.state.model import NetState
from vdpad.vhost_user.device import GuestVring, Start
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.faults import BasesUnknown
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.commands import Command, MacAddrSet
from vdpad.virtio.config import NetConfig, pull_config
from vdpad.virtio.features import FeatureSet

_UNPLACED = (
    "{}: expected a device that tells where it has left its queues, it cannot be suspended, and "
    "nobody says that it works in order; start the back end with --in-order if it does"
)


class Running:
    """One start of a device."""

    def __init__(
        self,
        device: ShadowedDevice,
        steps: Steps,
        start: Start,
        features: FeatureSet,
        wrote: Wrote,
        relaying: Relaying,
        *,
        in_order: bool,
    ) -> None:
        """
        Args:
            device: at DRIVER_OK, with its CVQ alone.
            steps: the device's.
            start: what the front end has set up; its descriptors stay the session's.
            features: those negotiated with the device.
            wrote: called with what this process writes to the guest's memory.
            relaying: the device's.
            in_order: the device works so.
        """
        self.start = start
        """As the front end has set it up by now; its descriptors stay the session's."""
        self._in_order = in_order
        self._relaying = relaying
        self._wrote = wrote
        self._device = device
        self._steps = steps
        self._features = features
        self._queue = device.control_queue()
        self._control = control_vring(start, device.control_queue_index)
        self._forwarder: Forwarder | None = None
        """From `serve` on."""
        self._shadow: Shadow | None = None
        self.kept_queue: KeptQueue | None = None
        """The device's CVQ, where the VMM keeps the guest's and it serves."""
        self._enabled: set[int] = set()
        self._replays = Replays()
        self._wanted: set[int] = set()
        """Those that the front end has enabled and not disabled since."""

    @property
    def has_control_queue(self) -> bool:
        """Whether the VMM hands the guest's CVQ over."""
        return self._control is not None

    async def restore(self, state: NetState, name: str, config: NetConfig) -> Report:
        """Gives the device a state; before `serve`.

        Raises:
            NotRestored: it does not take all of it, or was given up.
        """
        return await self._replays.take(
            restore(
                state,
                self._queue,
                self._device.control_geometry,
                name=name,
                features=self._features,
                config=config,
                enable=self._enable_data,
            )
        )

    async def put_address_back(self, mac: bytes, name: str) -> None:
        """Gives the device this address where it has another; before `serve`.

        Some keep through a reset what the guest before has set (mlx5_vdpa, vdpa_sim_net).

        Raises:
            NotRestored: it does not take it, or was given up.
        """
        command = MacAddrSet(mac)
        config = pull_config(await self._steps.take(self._device.config))
        if config.mac != mac and command.lacks(self._features) is None:
            await self._send([command], name)

    async def serve(
        self,
        announcement: Announcement,
        noting: Callable[[Forwards], Forwards],
        acknowledged: Callable[[bytes, bytes], None],
        paired: Callable[[int], None],
        failed: Callable[[VdpadError], None],
    ) -> None:
        """Lets the packets go, and then the guest's commands.

        Args:
            announcement: which has begun, and takes the guest's answer to it.
            noting: notes what is forwarded.
            acknowledged: is given each command and its answer, before the guest is.
            paired: is given how many queue pairs a guest uses whose commands the VMM keeps.
            failed: called once, where commands are served no more.

        Raises:
            VdpadError: it cannot be.
        """
        start, geometry = self.start, self._device.control_geometry
        if self._control is None:
            await self._send(opening(self._features), self._device.name)
        forwarder = self._forwarder = Forwarder(self._queue, geometry)
        if self._control is None:
            self.kept_queue = KeptQueue(noting(forwarder), self._features, paired, failed)
        else:
            announcing = Announcing(announcement, noting(forwarder))
            self._shadow = Shadow(
                start.memory,
                self._control,
                start.features,
                announcing,
                acknowledged,
                failed,
                self._wrote,
            )
        await self._enable_data()
        if self.kept_queue is not None:
            await self.kept_queue.set_enabled(self._wanted)
        if self._shadow is not None and self._control is not None and self._control.is_enabled:
            self._shadow.begin()

    async def enable(self, index: int, enabled: bool) -> None:
        """Enables a ring, or takes note that it is disabled.

        Raises:
            VdpadError: the device does not do it.
        """
        await self._set_enabled(self._vring(index), enabled)
        self.start = with_enabled(self.start, index, enabled)

    async def _set_enabled(self, vring: GuestVring, enabled: bool) -> None:
        if self._shadow is not None and self._is_control(vring):
            if enabled:
                self._shadow.begin()
            return
        if enabled:
            await self._enable(vring)
        else:
            self._wanted.discard(vring.index)
        if self.kept_queue is not None:
            await self.kept_queue.set_enabled(self._wanted)

    async def relay(self, log: DirtyLog) -> None:
        """Relays the receive queues from now on, and marks in this log. Ends also if cancelled.

        Raises:
            CannotRelay: this device's cannot be; it runs on as before.
            VdpadError: the switch has failed, and the device may stand still.
        """
        async with self._idle_control_queue():
            step = partial(self._relaying.begin, self._data_queues, log)
            await to_its_end(self._steps.take(step))

    async def relay_no_more(self) -> None:
        """Gives the receive queues back. Ends also if cancelled.

        Raises:
            VdpadError: the switch has failed, and the device may stand still.
        """
        async with self._idle_control_queue():
            step = partial(self._relaying.end, self._data_queues)
            await to_its_end(self._steps.take(step))

    async def set_call(self, index: int, call: int | None) -> None:
        """Calls by another descriptor from now on.

        Raises:
            VdpadError: it is no eventfd, or the device cannot.
        """
        if call is not None:
            check_eventfd(call, f"ring {index}'s call")
        if self._shadow is not None and self._is_control(self._vring(index)):
            self._shadow.set_call(call)
        else:
            # The step has the descriptor, and the one before is closed afterwards.
            await to_its_end(self._steps.take(partial(self._set_call, index, call)))
        self.start = with_call(self.start, index, call)

    def give_up(self, why: str) -> None:
        """Waits for no command that the device has; also while it stops. May be called again."""
        self._replays.give_up(why)
        if self._forwarder is not None:
            self._forwarder.give_up(why)

    async def stop(self) -> dict[int, int]:
        """Ends all of it and resets the device, whatever goes wrong.

        Returns:
            where each ring stands.

        Raises:
            BasesUnknown: all has ended as it should, and the device does not tell where.
        """
        bases: dict[int, int] = {}
        data = self._data
        try:
            try:
                if self.kept_queue is not None:
                    await self.kept_queue.stop()
                if self._shadow is not None and self._control is not None:
                    bases[self._control.index] = await self._shadow.stop()
            finally:
                self._queue.close()
            step = partial(suspended_at, self._device, data, self._relaying.finish)
            data_bases = await self._steps.take(step)
        finally:
            await self._steps.take(self._relaying.reset)
        if data_bases is None:
            if not self._in_order:
                raise BasesUnknown(_UNPLACED.format(self._device.name), bases)
            data_bases = {each.index: used_index(self.start.memory, each) for each in data}
        return bases | data_bases

    @property
    def _data(self) -> list[GuestVring]:
        return [each for each in self.start.vrings if not self._is_control(each)]

    @property
    def _data_queues(self) -> DataQueues:
        enabled = frozenset(self._enabled)
        return DataQueues(tuple(self._data), enabled, self._features, self.start.memory)

    def _idle_control_queue(self) -> AbstractAsyncContextManager[None]:
        """Within it no command is in flight."""
        return nullcontext() if self._forwarder is None else self._forwarder.idle

    # --- the device's CVQ before it is the shadow's ---

    async def _send(self, commands: Sequence[Command], name: str) -> None:
        geometry = self._device.control_geometry
        await self._replays.take(send(commands, self._queue, geometry, name=name))

    # --- steps ---

    def _set_call(self, index: int, call: int | None) -> None:
        if not self._relaying.set_call(index, call):
            self._device.set_call(index, call)

    # --- queues ---

    def _is_control(self, vring: GuestVring) -> bool:
        return self._control is not None and vring.index == self._control.index

    def _vring(self, index: int) -> GuestVring:
        for vring in self.start.vrings:
            if vring.index == index:
                return vring
        raise BackEndError(f"ring {index}: expected one that the device runs with")

    async def _enable_data(self, _needed: Set[int] = frozenset()) -> None:
        """Those that the front end has enabled; which are needed for what is the guest's affair."""
        for vring in self.start.vrings:
            if vring.is_enabled and not self._is_control(vring):
                await self._enable(vring)

    async def _enable(self, vring: GuestVring) -> None:
        self._wanted.add(vring.index)
        if vring.index in self._enabled:
            return
        await self._steps.take(partial(self._device.enable, vring.index))
        self._enabled.add(vring.index)
        if vring.kick is not None:
            with kicks_that_do_not_block():
                EventfdSender(vring.kick)()
