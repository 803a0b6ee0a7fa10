"""A device behind a VMM that keeps the control queue has the filter that its monitor tells."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backend.following.qemu import Qemu, listening
from tests.backend.test_kept_queue import KEPT
from tests.backend.vmm import OTHER_MAC, PLAIN, BackEnd, Heard, Vmm, back_end, vmm
from tests.support.descriptors import no_descriptor_left
from tests.support.rx_filter import card
from tests.support.waiting import until
from tests.vhost_user.front_end import SET_STATUS, u64
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.following.follower import Follower
from vdpad.backend.listeners import Listeners
from vdpad.backend.process_events import FilterFollowed, FilterUnknown, MonitorAwaited
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.service.events.event import Event
from vdpad.state.model import NetState
from vdpad.virtio.commands import ACK_ERR, RxPromisc, VlanAdd
from vdpad.virtio.features import Feature

MANY = {
    "main_mac": OTHER_MAC.hex(":"),
    "unicast_table": ["52:54:00:00:00:09", "52:54:00:00:00:08"],
    "multicast_table": ["01:00:5e:00:00:01"],
    "multicast": "all",
    "vlan": "normal",
    "vlan_table": [0, 7, 4094],
}


class Told(Heard):
    """What listeners were told, the follower among them."""

    follower: Follower | None = None

    def __init__(self) -> None:
        super().__init__()
        self.awaited: list[str] = []
        """Why the monitor was looked for while no guest had the device."""

    def announce(self, event: Event) -> None:
        """As the follower tells."""
        if isinstance(event, MonitorAwaited):
            self.awaited.append(event.reason)
        else:
            self.events.append(event)

    def listeners(self) -> Listeners:
        return Listeners(
            self.events.append,
            started=lambda start: self._follower().started(),
            stopped=lambda: self._follower().stopped(),
        )

    def _follower(self) -> Follower:
        assert self.follower is not None
        return self.follower

    def said(self) -> list[str]:
        """The events of filters, in some words."""
        return [each.sentence().partition(": ")[2] for each in self.events]


@dataclass
class Followed:
    """A back end that follows a monitor, and whoever is on either side of it."""

    device: LoopDevice
    on: BackEnd
    follower: Follower
    told: Told
    path: Path

    def settings(self) -> dict[str, Any]:
        """Of the device."""
        return self.device.net.settings()

    def is_wide(self) -> bool:
        told = self.settings()
        return told["rx"]["promisc"] is True and len(told["vlans"]) == 4096

    def has(self, **filter_of_card: Any) -> bool:
        """Whether the device has the filter of such a card."""
        shown, told = card(**filter_of_card), self.settings()
        return bool(
            told["mac"] == shown["main-mac"]
            and told["rx"]["promisc"] is shown["promiscuous"]
            and told["rx"]["allmulti"] is (shown["multicast"] == "all")
            and told["mac_table"]["unicast"] == shown["unicast-table"][::-1]
            and told["mac_table"]["multicast"] == shown["multicast-table"]
            and told["vlans"] == shown["vlan-table"]
        )

    def captured(self) -> NetState:
        found = self.follower.found(self.on.device.settings.found())
        assert found is not None
        assert found.state is not None
        return found.state

    def missing(self) -> dict[str, str]:
        found = self.follower.found(self.on.device.settings.found())
        assert found is not None
        return {each.part: each.why for each in found.missing}


@asynccontextmanager
async def following(
    path: Path, device: LoopDevice | None = None, nic: str | None = None
) -> AsyncIterator[Followed]:
    device, told = device or LoopDevice(), Told()
    async with back_end(device, told, follows_filter=True) as on:
        told.follower = Follower("nic0", path, nic, on.device, told.announce)
        task = asyncio.create_task(told.follower.run())
        try:
            yield Followed(device, on, told.follower, told, path)
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError)


@asynccontextmanager
async def guest_on(followed: Followed) -> AsyncIterator[Vmm]:
    """A guest whose VMM keeps the control queue, and runs."""
    async with vmm(followed.on, queues=8, features=KEPT) as machine:
        await machine.set_up()
        await start(machine)
        yield machine
        await machine.stop()


async def start(machine: Vmm) -> None:
    await machine.front_end.enable(0, 1)
    await machine.front_end.done(SET_STATUS, u64(0xF))


async def stop(machine: Vmm) -> list[int]:
    """As QEMU does when it pauses its guest; returns where the rings stand."""
    await machine.front_end.enable(*range(8), on=0)
    bases = await machine.stop()
    await machine.front_end.done(SET_STATUS, u64(0))
    return bases


@pytest.fixture
def qemu() -> Qemu:
    return Qemu()


@pytest.fixture
async def followed(tmp_path: Path, qemu: Qemu) -> AsyncIterator[Followed]:
    with no_descriptor_left():
        async with listening(tmp_path / "qmp", qemu.serve), following(tmp_path / "qmp") as followed:
            yield followed


# --- following ---


async def test_the_device_has_what_qemu_shows_and_each_change_of_it(
    qemu: Qemu, followed: Followed
) -> None:
    async with guest_on(followed) as machine:
        await until(lambda: followed.has())
        qemu.now(**MANY)
        await until(lambda: followed.has(**MANY))
        assert await machine.loop(b"packet") == b"packet"
        qemu.now(vlan_table=[7], multicast="normal", promiscuous=True)
        now = MANY | {"vlan_table": [7], "multicast": "normal", "promiscuous": True}
        await until(lambda: followed.has(**now))
        assert followed.on.device.status is Status.RUNNING
    assert followed.told.said() == [
        f"the device has the filter of nic0, as {followed.path} tells",
    ]


async def test_only_the_differences_are_sent(tmp_path: Path, qemu: Qemu) -> None:
    sent: list[bytes] = []

    class Counting(LoopDevice):
        def start(self) -> None:
            super().start()
            command = self.net.command
            self.net.command = lambda readable: (  # type: ignore[method-assign]
                sent.append(readable) or command(readable)  # type: ignore[func-returns-value]
            )

    path = tmp_path / "qmp"
    async with (
        listening(path, qemu.serve),
        following(path, Counting()) as followed,
        guest_on(followed),
    ):
        await until(lambda: followed.has())
        sent.clear()
        qemu.now(vlan="normal", vlan_table=[7])
        await until(lambda: followed.settings()["vlans"] == [7])
        assert sent == [VlanAdd(7).encode()]
        sent.clear()
        qemu.now(promiscuous=True)
        await until(lambda: followed.settings()["rx"]["promisc"])
        assert sent == [RxPromisc(on=True).encode()]


async def test_what_is_captured_is_what_the_guest_has(qemu: Qemu, followed: Followed) -> None:
    async with guest_on(followed) as machine:
        qemu.now(**MANY)
        await until(lambda: followed.has(**MANY))
        await machine.front_end.enable(2, 3)
        captured, settings = followed.captured(), followed.settings()
        assert captured.mac == OTHER_MAC
        assert (
            captured.model_dump(mode="json", exclude_none=True)["mac_table"]
            == settings["mac_table"]
        )
        assert captured.vlans == (0, 7, 4094)
        assert captured.rx is not None
        assert captured.rx.allmulti is True
        assert captured.queue_pairs == settings["queue_pairs"] == 2
        assert captured.features >= KEPT | {Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN}
        assert followed.missing() == {}
        bases = await stop(machine)
        qemu.now(vlan_table=[9])
        await until(lambda: followed.captured().vlans == (9,))
        await machine.set_up_rings(bases)
        await start(machine)
        await until(lambda: followed.has(**MANY | {"vlan_table": [9]}))
    qemu.hang_up()
    await until(lambda: qemu.connections == 2)
    assert followed.captured().vlans == (9,)


async def test_each_start_begins_wide_and_anew(qemu: Qemu, followed: Followed) -> None:
    async with guest_on(followed) as machine:
        qemu.now(**MANY)
        await until(lambda: followed.has(**MANY))
        bases = await stop(machine)
        qemu.answers = False
        await machine.set_up_rings(bases)
        await start(machine)
        assert followed.is_wide()
        assert followed.missing().keys() == {"mac", "rx", "mac_table", "vlans"}


async def test_a_guest_whose_commands_come_here_is_left_alone(
    qemu: Qemu, followed: Followed
) -> None:
    async with vmm(followed.on, queues=9, features=PLAIN) as machine:
        await machine.start()
        asked = qemu.queries
        qemu.now(vlan="normal", vlan_table=[1])
        await until(lambda: qemu.queries > asked)
        assert await machine.command(VlanAdd(5).encode()) == b"\0"
        assert followed.settings()["vlans"] == [5]
        assert followed.captured().vlans == (5,)
    assert followed.told.said() == []


# --- which card ---


@pytest.mark.parametrize("nic", ["b", "hostnet1"])
async def test_the_card_that_is_named(tmp_path: Path, qemu: Qemu, nic: str) -> None:
    qemu.cards = [card("a"), card("b", main_mac=OTHER_MAC.hex(":"))]
    qemu.netdevs = {"/machine/peripheral/a": "hostnet0", "/machine/peripheral/b": "hostnet1"}
    path = tmp_path / "qmp"
    async with (
        listening(path, qemu.serve),
        following(path, nic=nic) as followed,
        guest_on(followed),
    ):
        await until(lambda: followed.has(main_mac=OTHER_MAC.hex(":")))


@pytest.mark.parametrize(
    ("there", "nic", "expected"),
    [
        (["a", "b"], None, "expected one network card, or --nic; .* a, b"),
        ([], None, "expected one network card, or --nic; .* none"),
        (["a", "b"], "c", "expected one of c; .* a, b"),
    ],
)
async def test_which_card_cannot_be_told(
    tmp_path: Path, qemu: Qemu, there: list[str], nic: str | None, expected: str
) -> None:
    qemu.cards = [card(each) for each in there]
    path = tmp_path / "qmp"
    async with (
        listening(path, qemu.serve),
        following(path, nic=nic) as followed,
        guest_on(followed),
    ):
        await until(lambda: followed.told.events)
        assert followed.is_wide()
        (said,) = followed.told.said()
        assert said.startswith("the device is open wide, whatever its guest's filter: ")
        assert re.search(expected, said)


async def test_a_card_that_is_unplugged(qemu: Qemu, followed: Followed) -> None:
    async with guest_on(followed):
        await until(lambda: followed.follower.follows)
        qemu.cards = []
        qemu.say({"event": "NIC_RX_FILTER_CHANGED"})
        await until(followed.is_wide)
        await until(lambda: not followed.follower.follows)
        qemu.cards = [card("nic1")]
        await until(lambda: followed.follower.follows)
    assert "invalid net client name: nic0" in followed.told.said()[1]


# --- a monitor that is not there yet ---


async def test_a_monitor_that_is_not_there_yet_is_told_at_once(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "qmp"
    none = f"{path}: expected QEMU's QMP socket: No such file or directory"
    async with following(path) as followed:
        await until(lambda: followed.told.awaited)
        # Once, however often it is looked for.
        await asyncio.sleep(0.5)
        assert followed.told.awaited == [none]
        async with listening(path, qemu.serve):
            await until(lambda: qemu.queries)
            async with guest_on(followed):
                await until(lambda: followed.has())
            qemu.hang_up()
            await until(lambda: len(followed.told.awaited) > 1)
    assert followed.told.awaited[1] == f"{path}: QEMU closed the connection"
    assert [type(each) for each in followed.told.events] == [FilterFollowed]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda path: path.mkdir(), "expected QEMU's QMP socket: Connection refused"),
        (lambda path: path.touch(), "expected QEMU's QMP socket: Connection refused"),
    ],
    ids=["a folder", "a file"],
)
async def test_what_is_no_monitor_is_told_at_once(
    tmp_path: Path, made: Callable[[Path], None], expected: str
) -> None:
    path = tmp_path / "qmp"
    made(path)
    async with following(path) as followed:
        await until(lambda: followed.told.awaited)
    assert followed.told.awaited == [f"{path}: {expected}"]


async def test_a_card_that_is_not_there_is_told_at_once(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "qmp"
    async with listening(path, qemu.serve), following(path, nic="nic9") as followed:
        await until(lambda: followed.told.awaited)
    (told,) = followed.told.awaited
    assert "expected one of nic9; cards with a receive filter: nic0" in told


# --- a monitor that goes ---


async def test_a_monitor_that_goes_and_comes_back(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "qmp"
    async with following(path) as followed, guest_on(followed):
        await until(lambda: followed.told.events)
        assert followed.is_wide()
        for _ in range(2):
            async with listening(path, qemu.serve):
                await until(lambda: followed.has())
            qemu.hang_up()
            await until(followed.is_wide)
            await until(lambda: not followed.follower.follows)
            assert followed.missing()["vlans"] == f"{path}: QEMU closed the connection"
        assert followed.on.device.status is Status.RUNNING
    none = f"{path}: expected QEMU's QMP socket: No such file or directory"
    assert none in followed.told.said()[0]
    kinds = [type(each) for each in followed.told.events]
    # One that is gone is told, and then that none is there, where it was looked for in between.
    assert kinds.count(FilterFollowed) == 2
    assert len(kinds) - kinds.count(FilterUnknown) == 2
    assert 3 <= kinds.count(FilterUnknown) <= 5


async def test_a_monitor_that_is_not_there_is_told_of_a_device_that_runs_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "qmp"
    async with following(path) as followed:
        await until(lambda: followed.follower._unknown.endswith("directory"))
        assert followed.told.events == []
        async with guest_on(followed):
            await until(lambda: followed.told.events)


# --- devices ---


class Refusing(LoopDevice):
    """A device that refuses a VLAN of which it was told before."""

    refuses = b""

    def start(self) -> None:
        super().start()
        command = self.net.command
        self.net.command = lambda readable: (  # type: ignore[method-assign]
            ACK_ERR if readable == self.refuses else command(readable)
        )


async def test_a_device_that_refuses_is_open_wide(tmp_path: Path, qemu: Qemu) -> None:
    path, device = tmp_path / "qmp", Refusing()
    async with listening(path, qemu.serve), following(path, device) as followed, guest_on(followed):
        await until(lambda: followed.follower.follows)
        device.refuses = VlanAdd(7).encode()
        qemu.now(vlan="normal", vlan_table=[5, 7])
        await until(lambda: len(followed.told.events) > 1)
        assert followed.settings()["rx"]["promisc"] is True
        assert "VLAN_ADD vid=7, it was acked 1" in followed.told.said()[1]
        assert followed.captured().vlans == (5, 7)


async def test_a_device_that_cannot_be_opened_has_failed(tmp_path: Path, qemu: Qemu) -> None:
    path, device = tmp_path / "qmp", Refusing()
    async with listening(path, qemu.serve), following(path, device) as followed, guest_on(followed):
        await until(lambda: followed.follower.follows)
        device.refuses = RxPromisc(on=True).encode()
        qemu.hang_up()
        await until(lambda: followed.on.device.status is Status.FAILED)
        assert "RX_PROMISC" in followed.on.device.failure
