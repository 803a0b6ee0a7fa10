"""The address of a device is its own again, whenever its back end was killed.

What a process that is killed leaves is a copy of its state directory, taken while it runs.
"""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backend.test_device import Remembering
from tests.backend.vmm import OK, OTHER_MAC, PLAIN, Vmm
from tests.support.guest import Guest
from tests.support.waiting import GUARD
from tests.vhost_user import front_end as page
from tests.vhost_user.front_end import FrontEnd
from vdpad.backend.assembly import opened
from vdpad.backend.back_end import BackEnd
from vdpad.backend.control.sockets import CONTROL, VARLINK
from vdpad.backend.kept.addresses import MOST, Addresses
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.noting import Noting
from vdpad.backend.options import BackEndOptions
from vdpad.backend.process_events import AddressesUnreadable
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.service.events.announcing import Announcer
from vdpad.service.events.event import Event
from vdpad.state.model import NetState
from vdpad.virtio.commands import ACK_ERR, MacAddrSet, VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import Feature
from vdpad.virtio.mac import format_mac

OWN = PACKET_CONFIG.mac
ANOTHER_MAC = bytes.fromhex("525400ddeeff")
A_THIRD = bytes.fromhex("525400010203")


@asynccontextmanager
async def on(
    folder: Path, device: Remembering, announce: Announcer | None = None
) -> AsyncIterator[BackEnd]:
    """A back end whose state is in the folder."""
    control = {CONTROL: folder / "control", VARLINK: folder / "io.vdpad"}
    options = BackEndOptions("net0", folder / "state", control=control)
    async with opened(options, lambda: device, announce or Announcer()) as back_end:
        yield back_end


@asynccontextmanager
async def vmm(back_end: BackEnd) -> AsyncIterator[Vmm]:
    """A front end that is served by it."""
    guest = Guest(9, event_idx=Feature.RING_EVENT_IDX in PLAIN)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    front_end = FrontEnd(theirs)
    serving = asyncio.create_task(back_end.serve(ours))
    try:
        yield Vmm(guest, front_end, PLAIN)
    finally:
        front_end.close()
        await asyncio.wait_for(serving, GUARD)
        guest.close()


class Killed:
    """What is left where a process is killed: its directory, and what its device shows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shown = b""

    def now(self, device: Remembering) -> None:
        """It is killed now, unless it was; what still happens is of no account."""
        if (self._folder / "left").exists():
            return
        shutil.copytree(self._folder / "state", self._folder / "left/state")
        if device._was_up is not None:
            self._shown = bytes.fromhex(device.net.settings()["mac"].replace(":", ""))
        else:
            self._shown = device.kept

    def device(self) -> Remembering:
        """As the next process finds it."""
        device = Remembering()
        device.kept = self._shown
        return device

    async def is_put_right(self) -> None:
        """The next process knows its device's own address, and gives the device that back."""
        device = self.device()
        async with on(self._folder / "left", device) as back_end:
            assert back_end.device.addresses.own == OWN
            assert pull_config(await back_end.device.config()).mac == OWN
        assert device.kept == OWN
        assert not (self._folder / "left/state/device.addresses").exists()


async def test_after_a_guest_that_runs(tmp_path: Path) -> None:
    device, killed = Remembering(), Killed(tmp_path)
    async with on(tmp_path, device) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        killed.now(device)
    await killed.is_put_right()


async def test_after_a_reset_by_the_vmm(tmp_path: Path) -> None:
    device, killed = Remembering(), Killed(tmp_path)
    async with on(tmp_path, device) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        await machine.stop()
        await machine.front_end.done(page.RESET_DEVICE)
        assert not (tmp_path / "state/guest.state").exists()
        killed.now(device)
    await killed.is_put_right()


async def test_before_the_next_guest_has_begun(tmp_path: Path) -> None:
    """Its settings are kept by then, and its device shows the address of the one before."""

    class Stopping(Remembering):
        def control_queue(self) -> ControlQueue:
            if self.kept == OTHER_MAC:
                killed.now(self)
            return super().control_queue()

    device, killed = Stopping(), Killed(tmp_path)
    async with on(tmp_path, device) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        await machine.stop()
        await machine.set_up_rings()
        await machine.enable_all()
    assert killed.device().kept == OTHER_MAC
    await killed.is_put_right()


async def test_before_the_guest_hears_of_its_ack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, killed = Remembering(), Killed(tmp_path)
    async with on(tmp_path, device) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        acted = device.net.command

        def command(readable: bytes) -> int:
            answer = acted(readable)
            killed.now(device)
            return answer

        monkeypatch.setattr(device.net, "command", command)
        assert await machine.command(MacAddrSet(ANOTHER_MAC).encode()) == OK
    assert killed.device().kept == ANOTHER_MAC
    await killed.is_put_right()


async def test_after_a_state_was_tried_for_a_guest_that_never_came(tmp_path: Path) -> None:
    device, killed = Remembering(), Killed(tmp_path)
    state = NetState(version=1, features=PLAIN, mac=OTHER_MAC)
    async with on(tmp_path, device) as back_end:
        await back_end.load(MovedState(state, (), {}))
        killed.now(device)
    assert killed.device().kept == OTHER_MAC
    await killed.is_put_right()


async def test_an_address_that_somebody_has_given_the_device_meanwhile_is_its_own(
    tmp_path: Path,
) -> None:
    device, killed = Remembering(), Killed(tmp_path)
    async with on(tmp_path, device) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        killed.now(device)
    device = killed.device()
    device.kept = A_THIRD
    async with on(tmp_path / "left", device) as back_end:
        assert back_end.device.addresses.own == A_THIRD
    assert device.kept == A_THIRD


async def test_after_a_switch_it_is_the_other_device_s(tmp_path: Path) -> None:
    first, killed = Remembering(), Killed(tmp_path)
    other = Remembering(replace(PACKET_CONFIG, mac=A_THIRD))
    async with on(tmp_path, first) as back_end, vmm(back_end) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        await back_end.device.switching.switch(lambda: other)
        assert first.kept == OWN
        killed.now(other)
    left = killed.device()
    async with on(tmp_path / "left", left) as back_end:
        assert back_end.device.addresses.own == A_THIRD
    assert left.kept == A_THIRD


async def test_after_a_switch_without_a_guest_it_is_the_other_device_s(tmp_path: Path) -> None:
    first, other = Remembering(), Remembering(replace(PACKET_CONFIG, mac=A_THIRD))
    killed = Killed(tmp_path)
    async with on(tmp_path, first) as back_end:
        await back_end.device.switching.switch(lambda: other)
        async with vmm(back_end) as machine:
            await machine.start()
            killed.now(other)
    left = killed.device()
    # The other is given the address by which its guest knows the first.
    assert left.kept == OWN
    async with on(tmp_path / "left", left) as back_end:
        assert back_end.device.addresses.own == A_THIRD


@pytest.mark.parametrize("text", ['{"version": 1, "own": "x", "given": []}', "", "[" * 4000])
async def test_a_file_that_cannot_be_read_is_told_and_tells_nothing(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/device.addresses").write_text(text)
    heard: list[Event] = []
    async with on(tmp_path, Remembering(), Announcer(heard.append)) as back_end:
        assert back_end.device.addresses.own == OWN
    (told,) = [each for each in heard if isinstance(each, AddressesUnreadable)]
    assert told.mac == format_mac(OWN)
    assert "device.addresses cannot be read" in told.sentence()


async def test_no_file_is_told_as_nothing(tmp_path: Path) -> None:
    heard: list[Event] = []
    async with on(tmp_path, Remembering(), Announcer(heard.append)):
        pass
    assert not any(isinstance(each, AddressesUnreadable) for each in heard)


# --- which are noted ---


class _Answering:
    """A device that answers so."""

    def __init__(self, answer: bytes, addresses: Addresses) -> None:
        self.answer = answer
        self._addresses = addresses
        self.noted: list[tuple[bytes, ...]] = []

    async def forward(self, command: bytes, room: int) -> bytes:
        self.noted.append(self._addresses.given)
        return self.answer


async def test_an_address_is_noted_before_and_forgotten_where_it_is_refused() -> None:
    addresses = Addresses(OWN)
    device = _Answering(OK, addresses)
    noting = Noting(addresses, device)
    await noting.forward(MacAddrSet(OTHER_MAC).encode(), 1)
    device.answer = bytes((ACK_ERR,))
    for number in range(2 * MOST):
        await noting.forward(MacAddrSet(bytes((2, 0, 0, 0, 0, number))).encode(), 1)
        assert addresses.given == (OTHER_MAC,)
    assert device.noted[:2] == [(OTHER_MAC,), (OTHER_MAC, bytes((2, 0, 0, 0, 0, 0)))]
    device.answer = OK
    await noting.forward(MacAddrSet(ANOTHER_MAC).encode(), 1)
    assert addresses.given == (ANOTHER_MAC,)
    # Nothing of the kind, and half of one.
    await noting.forward(VlanAdd(7).encode(), 1)
    device.answer = bytes((ACK_ERR,))
    await noting.forward(MacAddrSet(OTHER_MAC).encode()[:5], 1)
    assert addresses.given == (ANOTHER_MAC,)
    device.answer = OK
    await noting.forward(MacAddrSet(OWN).encode(), 1)
    assert not addresses.given
