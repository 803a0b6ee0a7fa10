"""The vhost-vdpa devices that this daemon owns.

A device is in here from the moment that a prepare asks for it until it is the kernel's again:

    opening ──▶ up ──release, or its owner gives it up──▶ closing ──▶ gone
       └────────────────it does not come up───────────────────────────────▲

Only `DeviceKeeper.bring_up` puts one in, and what is in here no other owner gets. Opening and
closing sleep in the device's driver for as long as it pleases, so each has a thread of its own: the
event loop never waits in the kernel, and a driver that hangs holds up only its own device.

Where there is a descriptor store, what is up has a copy there, and outlives the daemon: `adopt`
puts it in again, up, for the owner that it was kept for. As a copy keeps the kernel from
resetting a device, giving it back is then a reset, the store's letting go, and our closing.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from vdpad.daemon.devices.kept import KeptDevice, Phase
from vdpad.daemon.devices.opening import Opened, adopt_device, give_back, open_device
from vdpad.daemon.devices.store import DescriptorStore, Stored
from vdpad.daemon.events.devices import (
    DeviceKept,
    DeviceLeft,
    DeviceLost,
    DeviceNotReleased,
    DeviceReleased,
    DeviceStillKept,
)
from vdpad.errors import VdpadError
from vdpad.queues.vhost_vdpa.errors import VhostVdpaError
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.systemd.notify import Notifier
from vdpad.service.threads import on_a_thread
from vdpad.virtio.features import FeatureSet

# How long a device may take to come up or to go, in seconds. Past it the request is answered, and
# the device is given back once its driver lets go of the thread.
_MAX_SECONDS = 10.0

# How long one that nobody waits for is left alone where there is no thread to close it, in seconds.
_TRIES_AGAIN = 1.0


class DeviceKeeper:
    """All of them, by name."""

    def __init__(
        self, announce: Announce = log_event, store: DescriptorStore | None = None
    ) -> None:
        self._announce = announce
        self._all: dict[str, KeptDevice] = {}
        self._store = store or DescriptorStore(Notifier(None))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, device: str) -> KeptDevice | None:
        """The device of this name, or with this path as its node, if it is kept."""
        by_node = (kept for kept in self._all.values() if str(kept.node) == device)
        return self._all.get(device) or next(by_node, None)

    def named(self, device: str) -> KeptDevice:
        """The same, for a caller who says that it is kept.

        Raises:
            Refusal: no-such-device.
        """
        kept = self.get(device)
        if kept is None:
            there = ", ".join(self._all) or "none"
            raise Refusal(
                Kind.NO_SUCH_DEVICE, f"vdpad keeps no device of this name; it keeps: {there}"
            )
        return kept

    async def bring_up(self, name: str, node: Path, guest: FeatureSet, owner: str) -> KeptDevice:
        """Opens a device and brings it up for a guest with these features.

        On cancellation, or when it takes too long, the device is given back once its driver lets
        go of it; until then it counts as kept.

        Raises:
            Refusal: busy, no-such-device, not-allowed, overloaded, device-broken, timeout.
            NoControlQueue: the device does not offer CTRL_VQ.
        """
        self._refuse_another(name)
        kept = self._all[name] = KeptDevice(name, node, owner, self.close)
        await self._open(kept, partial(open_device, name, node, guest, owner, self._store))
        self._announce(DeviceKept(*kept.named))
        return kept

    async def adopt(self, inherited: Iterable[tuple[str, int]]) -> list[KeptDevice]:
        """Keeps on what an earlier daemon kept; its devices are left as they are.

        Args:
            inherited: what systemd handed over, by name; what was never ours is left alone.
        """
        adopted = await asyncio.gather(*map(self._adopt, self._store.take(inherited)))
        return [kept for kept in adopted if kept is not None]

    async def _adopt(self, stored: Stored) -> KeptDevice | None:
        kept = KeptDevice(stored.device, Path(stored.node), stored.owner, self.close)
        self._all[stored.device] = kept
        try:
            await self._open(kept, partial(adopt_device, stored))
        except (Refusal, VhostVdpaError) as error:
            self._announce(DeviceLost(*kept.named, str(error)))
            self._store.drop(stored.key)
            return None
        self._announce(DeviceStillKept(*kept.named))
        return kept

    async def _open(self, kept: KeptDevice, opening: Callable[[], Opened]) -> None:
        try:
            opened = on_a_thread(opening, f"open {kept.name}")
        except BaseException:
            del self._all[kept.name]
            raise
        try:
            await asyncio.wait([opened], timeout=_MAX_SECONDS)
        except asyncio.CancelledError:
            self._let_go_of(kept, opened)
            raise
        if not opened.done():
            self._let_go_of(kept, opened)
            raise _too_slow(kept.name, "come up")
        try:
            kept.mark_up(*opened.result())
        except BaseException:
            del self._all[kept.name]
            raise

    async def close(self, kept: KeptDevice) -> None:
        """Gives a device back to the kernel, which resets it. Cancellation does not stop that.

        Raises:
            Refusal: busy: it is on its way up or out; timeout: it does not go.
            NoThread: there is none, and it stays up.
        """
        if not kept.is_up:
            raise self._on_its_way(kept)
        closed = on_a_thread(
            partial(give_back, kept.device, kept.store_key, self._store), f"close {kept.name}"
        )
        kept.phase = Phase.CLOSING
        closed.add_done_callback(lambda _: self._gone(kept))
        await asyncio.wait([closed], timeout=_MAX_SECONDS)
        if not closed.done():
            raise _too_slow(kept.name, "be given back")

    async def stop(self) -> None:
        """Gives all back, as far as they go; where there is a store, leaves all to it."""
        up = [kept for kept in self._all.values() if kept.is_up]
        if self._store.is_present:
            await self._leave(up)
            return
        await self.close_all(up)

    async def _leave(self, up: list[KeptDevice]) -> None:
        closing = []
        for kept in up:
            # Where there is no thread, the end of the process closes it.
            with suppress(VdpadError):
                closing.append(on_a_thread(kept.device.close, f"leave {kept.name}"))
        if closing:
            await asyncio.wait(closing, timeout=_MAX_SECONDS)
        for kept in up:
            self._announce(DeviceLeft(*kept.named))

    async def close_all(self, devices: list[KeptDevice]) -> None:
        """Gives some back, as far as they go; what does not go is told."""
        results = await asyncio.gather(*map(self.close, devices), return_exceptions=True)
        for kept, error in zip(devices, results, strict=True):
            if error is not None:
                self._announce(DeviceNotReleased(*kept.named, str(error)))

    def _refuse_another(self, name: str) -> None:
        kept = self._all.get(name)
        if kept is None:
            return
        if not kept.is_up:
            raise self._on_its_way(kept)
        raise Refusal(
            Kind.BUSY,
            f"vdpad keeps {name} for migration {kept.owner}; release the device first",
            migration=kept.owner,
        )

    def _on_its_way(self, kept: KeptDevice) -> Refusal:
        way = "brought up" if kept.phase is Phase.OPENING else "given back"
        return Refusal(
            Kind.BUSY,
            f"{kept.name} is being {way} for migration {kept.owner}; try again in a moment",
            migration=kept.owner,
        )

    def _let_go_of(self, kept: KeptDevice, opened: "asyncio.Future[Opened]") -> None:
        """Nobody waits for this bring-up any more."""
        kept.phase = Phase.CLOSING
        opened.add_done_callback(lambda late: self._close_late(kept, late))

    def _close_late(self, kept: KeptDevice, opened: "asyncio.Future[Opened]") -> None:
        if opened.cancelled() or opened.exception() is not None:
            del self._all[kept.name]
            return
        closing = partial(give_back, *opened.result(), self._store)
        try:
            closed = on_a_thread(closing, f"close {kept.name}")
        except VdpadError:
            again = partial(self._close_late, kept, opened)
            asyncio.get_running_loop().call_later(_TRIES_AGAIN, again)
            return
        closed.add_done_callback(lambda _: self._gone(kept))

    def _gone(self, kept: KeptDevice) -> None:
        del self._all[kept.name]
        self._announce(DeviceReleased(*kept.named))


def _too_slow(name: str, what: str) -> Refusal:
    return Refusal(
        Kind.TIMEOUT,
        f"expected {name} to {what} within {_MAX_SECONDS:.0f} s, its driver still holds it; the "
        "kernel's log may say why. It is given back when the driver lets go",
    )
