"""Which used rings a device has, the guest's or ours: from its start on, or by a switch as it runs.

How it works. A device that starts while memory is logged is given our rings at once: they become
copies of the guest's, and the receive queues call by eventfds of ours.

A device that runs is switched, where it can be resumed. To our rings: it is suspended; ours become
copies of the guest's; the receive queues go on with them; the device is resumed, the thread begins,
and all queues are kicked, since a kick is lost on a device that is suspended. Back to the guest's:
the same, after what the device has left in ours was relayed. Where the device stops, that is all
there is to do. No command is in flight on the CVQ meanwhile (Forwarder.idle). One that can be
suspended and not resumed is started anew instead (logging.py).

A device that goes on without having taken our rings' addresses writes to the guest's, which the
relay sees when the guest's index moves by itself. Then, and where a queue cannot be relayed, *all*
that the device has written is unknown, and all is marked at the stop (marking.py).

A device can have our rings if it can be suspended, and if each receive queue stands where its used
ring does: one that has returned buffers out of order, or holds some that it took, cannot be begun
by a base alone. Nothing of a switch that fails stays.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from vdpad.backend.driving import as_device_has_it, used_index
from vdpad.backend.faults import BackEndError
from vdpad.backend.own_rings import OwnRings
from vdpad.backend.relay_thread import NoRelay, RelayThread
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice, Vring
from vdpad.vhost_user.device import GuestVring
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.faults import means
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import BadGeometry
from vdpad.wire.user_threads import NoThread


class CannotRelay(BackEndError):
    """This device's receive queues cannot be relayed now."""


@dataclass(frozen=True, slots=True)
class DataQueues:
    """The data queues of a device that runs."""

    vrings: tuple[GuestVring, ...]
    enabled: frozenset[int]
    features: FeatureSet
    memory: GuestMemory

    @property
    def receive(self) -> list[GuestVring]:
        """Those that are relayed: they have even indices (virtio 1.4, 5.1.2)."""
        return [vring for vring in self.vrings if not vring.index % 2]

    @property
    def transmit(self) -> list[GuestVring]:
        """Those that are not."""
        return [vring for vring in self.vrings if vring.index % 2]


class Relaying:
    """That of one device. All but `is_on` are steps of the device's (steps.py)."""

    def __init__(self, device: ShadowedDevice, failed: Callable[[VdpadError], None]) -> None:
        """It is off.

        Args:
            device: whose steps these are.
            failed: called on a thread, where it goes on no more although nobody has ended it.
        """
        self._device = device
        self._tell_failed = failed
        self._rings = OwnRings(device)
        self.thread = RelayThread(self._failed)
        self.has_failed = False
        """It has gone on no more, since it was last begun."""
        self.has_marked_all = False
        """So it has, of what the device has written from `begin` to its end."""
        self.has_refused = False
        """The device did not start with our rings once, or did not reach them; it is not tried
        again."""
        self._queues: DataQueues | None = None

    @property
    def starts_on_ours(self) -> bool:
        """Whether a device that starts is given our rings, where memory is logged."""
        return self._device.can_suspend and not self.has_refused

    @property
    def is_on(self) -> bool:
        """The device has our rings."""
        return self._queues is not None

    def close(self) -> None:
        """Gives everything back. The device was reset."""
        self.thread.close()

    # --- a device that starts ---

    def place(
        self,
        data: Sequence[GuestVring],
        features: FeatureSet,
        memory: GuestMemory,
        *,
        log: DirtyLog | None,
    ) -> Mapping[int, Vring]:
        """The data rings as a device is to have them that starts.

        Args:
            data: as the front end has them.
            features: those negotiated with the device.
            memory: the guest's.
            log: what it writes is marked there from `run` on, where it can be relayed.

        Raises:
            VdpadError: the device does not reach our rings.
        """
        self.has_marked_all = False
        placed = {vring.index: as_device_has_it(vring) for vring in data}
        queues = DataQueues(tuple(data), frozenset(), features, memory)
        if self._device.can_resume:
            # For a switch to come, which then changes no mapping.
            self._map(queues)
        if log is None or not self.starts_on_ours:
            return placed
        with suppress(CannotRelay):
            placed |= self._placed_on_ours(queues, log)
        return placed

    def run(self) -> None:
        """Relays what a device returns that has started with our rings."""
        self.thread.run()

    def _placed_on_ours(self, queues: DataQueues, log: DirtyLog) -> dict[int, Vring]:
        for vring in queues.receive:
            self._check_stands(queues, vring, vring.base)
        if not self._device.can_resume:
            try:
                self._map(queues)
            except VdpadError as error:
                self.has_refused = True
                raise CannotRelay(f"{self._device.name}: {error}") from error
        self._make_thread(log)
        try:
            vrings = {each.index: self._on_ours(queues, each) for each in queues.receive}
        except BaseException:
            self._end_thread()
            raise
        self._queues = queues
        return vrings

    def _map(self, queues: DataQueues) -> None:
        self._rings.map({vring.index: vring.addresses for vring in queues.receive})

    # --- the switch ---

    def begin(self, queues: DataQueues, log: DirtyLog) -> None:
        """Switches to our rings.

        Raises:
            CannotRelay: it is no such device; it runs on as before.
            VdpadError: the switch has failed, and the device may stand still.
        """
        self.has_marked_all = False
        if not self._device.can_resume:
            raise CannotRelay(
                f"{self._device.name}: expected a device that can be suspended and resumed, its "
                "driver does not offer both"
            )
        self._make_thread(log)
        try:
            self._begin_suspended(queues)
        except BaseException:
            self._end_thread()
            raise
        self._queues = queues
        self._device.resume()
        self.thread.run()
        self._kick(queues)

    def _begin_suspended(self, queues: DataQueues) -> None:
        self._device.suspend()
        try:
            with means():
                self._move_to_ours(queues)
        except VdpadError as error:
            # First: what was lacking may be the descriptors that the thread has by now.
            self._end_thread()
            self._move_back(queues)
            raise CannotRelay(
                f"{self._device.name} has the guest's rings again: {error}"
            ) from error

    def _move_to_ours(self, queues: DataQueues) -> None:
        for vring in queues.receive:
            self._check_stands(queues, vring, self._device.base(vring.index))
        for vring in queues.receive:
            self._move(queues, vring, self._on_ours(queues, vring))

    def end(self, queues: DataQueues) -> None:
        """Switches back to the guest's rings.

        Args:
            queues: as they are by now; others may be enabled, and others be called.

        Raises:
            VdpadError: the switch has failed, and the device may stand still.
        """
        self._device.suspend()
        self.finish()
        self._queues = None
        self._move_back(queues)

    def finish(self) -> None:
        """Relays and marks what a device has left that is suspended, and relays no more."""
        queues = self._queues
        if queues is None:
            return
        self.thread.halt()
        try:
            self.thread.finish([vring.addresses.parts()["used"] for vring in queues.transmit])
            self.has_marked_all = not self.has_failed
        except VdpadError as error:
            self._failed(error)
        finally:
            self.thread.release()

    def reset(self) -> None:
        """Resets the device, and relays no more."""
        try:
            self._device.reset()
        finally:
            if self._queues is not None:
                self._end_thread()
                self._queues = None
            self._rings.unmap()

    def _failed(self, error: VdpadError) -> None:
        if not self.has_failed:
            self.has_failed = True
            self._tell_failed(error)

    def set_call(self, index: int, call: int | None) -> bool:
        """Whether the guest's call of this ring is the relay's, which uses this one now."""
        queues = self._queues
        if queues is None or index not in {vring.index for vring in queues.receive}:
            return False
        self.thread.set_call(index, call)
        return True

    # --- the thread ---

    def _make_thread(self, log: DirtyLog) -> None:
        self.has_failed = False
        try:
            self.thread.make(log)
        except (NoThread, NoRelay) as error:
            raise CannotRelay(f"{self._device.name}: {error}") from error

    def _end_thread(self) -> None:
        self.thread.halt()
        self.thread.release()

    # --- a device that stands still ---

    def _check_stands(self, queues: DataQueues, vring: GuestVring, base: int) -> None:
        used = used_index(queues.memory, vring)
        if base != used:
            raise CannotRelay(
                f"{self._device.name}: expected queue {vring.index} to stand at its used index "
                f"{used}, it stands at {base}: the device holds buffers or works out of order"
            )

    def _on_ours(self, queues: DataQueues, vring: GuestVring) -> Vring:
        """A receive queue as the device is to have it, which the thread has then."""
        try:
            called = self.thread.begin(vring, self._rings.view(vring.index), queues.features)
        except BadGeometry as error:
            raise CannotRelay(f"{self._device.name}: queue {vring.index}: {error}") from error
        own = replace(vring.addresses, used=self._rings.address(vring.index))
        # Some drivers interrupt only where there was a call at the start.
        call = None if vring.call is None else called
        return replace(as_device_has_it(vring), ring=own, call=call)

    def _move(self, queues: DataQueues, vring: GuestVring, to: Vring) -> None:
        base = self._device.base(vring.index)
        enabled = vring.index in queues.enabled
        self._device.move_vring(vring.index, replace(to, base=base), enabled=enabled)

    def _move_back(self, queues: DataQueues) -> None:
        for vring in queues.receive:
            self._move(queues, vring, as_device_has_it(vring))
        self._device.resume()
        self._kick(queues)

    def _kick(self, queues: DataQueues) -> None:
        for vring in queues.vrings:
            if vring.kick is not None and vring.index in queues.enabled:
                self.thread.kick(vring.kick)
