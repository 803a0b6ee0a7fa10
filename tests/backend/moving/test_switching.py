"""Another device takes over under a guest that sends and receives all the time."""

import asyncio
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from tests.backend.devices import NeverResumed, NeverSuspended
from tests.backend.moving.faulty_device import Broke, FaultyDevice, traffic
from tests.backend.moving.test_announcement import ACK, ANNOUNCES, interrupts, status
from tests.backend.test_device import Remembering
from tests.backend.test_restoring import COALESCES, Conforming
from tests.backend.vmm import (
    OK,
    OTHER_MAC,
    BackEnd,
    Heard,
    Vmm,
    back_end,
    settings,
    vmm,
)
from tests.backend.written import used_ring
from tests.support.descriptors import no_descriptor_left
from tests.support.guest import shared_region
from tests.support.waiting import until
from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import mappings
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import AddressNotPutBack, DeviceSwitched, SwitchFailed
from vdpad.backend.faults import CannotSwitch, MayNotSwitch, NotRestored, SwitchUnderWay
from vdpad.backend.moving import switching
from vdpad.backend.moving.moving import MovedState
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.queues.vhost_vdpa.errors import MemoryLimit
from vdpad.restore.replay import Outcome
from vdpad.state.model import NetState
from vdpad.virtio.commands import (
    CoalRxSet,
    CoalVqSet,
    Command,
    MacAddrSet,
    MqPairsSet,
    RxPromisc,
    VlanAdd,
)
from vdpad.virtio.config import NetConfig, pull_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import Region

COMMANDS: tuple[Command, ...] = (MqPairsSet(2), RxPromisc(on=False), VlanAdd(7))
FIRMWARE: FeatureSet = frozenset({Feature.VERSION_1, Feature.MAC, Feature.STATUS})
"""As of a guest whose VMM keeps its CVQ."""


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    before = mappings()
    with no_descriptor_left():
        yield
    assert mappings() == before


@pytest.fixture
def heard() -> Heard:
    return Heard()


def named(device: LoopDevice, name: str) -> LoopDevice:
    """A device by which name it can be told from another."""
    device.name = name
    return device


def to(device: ShadowedDevice) -> Callable[[], ShadowedDevice]:
    """What opens this one."""
    return lambda: device


async def set_up(machine: Vmm) -> None:
    """A guest that has set something."""
    await machine.start()
    for command in COMMANDS:
        assert await machine.command(command.encode()) == OK


async def told(on: BackEnd, other: LoopDevice) -> str:
    """Why the device was not switched to this one; "" where it was."""
    try:
        await on.device.switching.switch(to(other))
    except VdpadError as error:
        return str(error)
    return ""


def seen(heard: Heard) -> list[str]:
    """Which switches were told of, and how each ended."""
    kinds = {DeviceSwitched: "switched", SwitchFailed: "failed"}
    return [kinds[type(each)] for each in heard.events if type(each) in kinds]


# --- it takes over ---


async def test_packets_go_on_and_settings_too(heard: Heard) -> None:
    async with back_end(named(LoopDevice(), "dev0"), heard) as on, vmm(on) as machine:
        await set_up(machine)
        async with traffic(machine) as flows:
            for turn in range(1, 11):
                other = named(LoopDevice(), f"dev{turn}")
                report = await on.device.switching.switch(to(other))
                assert (report.outcome, report.commands) == (Outcome.RESTORED, 3)
                assert report.paused_us > 0
                assert on.device.device_name == f"dev{turn}"
                assert on.device.report is not None
                assert on.device.report.commands == 3
                for flow in flows:
                    await flow.gone_on()
                assert other.net.settings()["vlans"] == [7]
                assert other.packets > 0
        assert await machine.command(VlanAdd(8).encode()) == OK
        assert settings(on)["vlans"] == [7, 8]
        assert other.net.settings()["vlans"] == [7, 8]
        assert await machine.stop() != [0] * 9
    assert on.refusals == []
    last = [each for each in heard.events if isinstance(each, DeviceSwitched)][-1]
    assert (last.before, last.after) == ("dev9", "dev10")
    assert seen(heard) == ["switched"] * 10


async def test_commands_go_on_meanwhile(heard: Heard) -> None:
    """A command that is under way when a switch comes is answered, by the one or the other."""
    device = LoopDevice()
    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        switching = asyncio.create_task(on.device.switching.switch(to(other := LoopDevice())))
        for vid in range(1, 200):
            assert await machine.command(VlanAdd(vid).encode()) == OK
        await switching
        assert await machine.command(VlanAdd(200).encode()) == OK
        assert other.net.settings()["vlans"] == [[1, 200]] or set(
            other.net.settings()["vlans"]
        ) == {*range(1, 201)}
        assert on.device.settings.counts.acked == 200


async def test_calls_and_enables_are_those_of_the_moment(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1, 8)
        call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        index = page.u64(0)
        await machine.front_end.done(page.SET_VRING_CALL, index, [call])
        await machine.front_end.enable(2, 3)
        await on.device.switching.switch(to(other := FaultyDevice()))
        assert other.steps[other.steps.index("control_queue", 40) :].count("enable") == 4
        assert await machine.loop(b"packet") == b"packet"
        await until(lambda: bool(select.select([call], [], [], 0)[0]))
        assert os.eventfd_read(call) == 1
        assert await machine.loop(b"second", pair=1) == b"second"
        os.close(call)


async def test_the_coalescing_of_queues_goes_once_they_are_enabled() -> None:
    other = Conforming()
    async with back_end(Conforming()) as on, vmm(on, features=COALESCES) as machine:
        await machine.start()
        for command in (VlanAdd(7), CoalRxSet(32, 50), CoalVqSet(3, 8, 9)):
            assert await machine.command(command.encode()) == OK
        async with traffic(machine):
            report = await on.device.switching.switch(to(other))
        assert report.commands == 3
        assert other.commands[-1][:2] == bytes(CoalVqSet.CODE)
        queues = other.net.settings()["coalescing"]["queues"]
        assert queues == {"3": {"max_packets": 8, "max_usecs": 9}}


async def test_the_guest_keeps_the_address_that_it_saw(on: BackEnd) -> None:
    own = replace(PACKET_CONFIG, mac=OTHER_MAC)
    async with vmm(on) as machine:
        await machine.start()
        before = await on.device.config()
        await on.device.switching.switch(to(other := LoopDevice(own)))
        assert pull_config(await on.device.config()).mac == pull_config(before).mac
        assert other.net.settings()["mac"] == "52:54:00:00:00:01"
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        await on.device.switching.switch(to(other := LoopDevice()))
        assert other.net.settings()["mac"] == "52:54:00:aa:bb:cc"
        await machine.stop()
        # The next driver sees what the first did.
        assert await on.device.config() == before


async def test_each_device_has_its_own_address_when_it_is_given_back(heard: Heard) -> None:
    first, other = Remembering(), Remembering(replace(PACKET_CONFIG, mac=b"\x52\x54\0\0\0\x09"))
    theirs = [first.kept, other.kept]
    async with back_end(first, heard) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        await on.device.switching.switch(to(other))
        assert [first.kept, other.kept] == [theirs[0], OTHER_MAC]
        await machine.stop()
    assert [first.kept, other.kept] == theirs
    assert not [each for each in heard.events if isinstance(each, AddressNotPutBack)]


async def test_the_guest_is_asked_to_announce_itself(on: BackEnd) -> None:
    ours, theirs = socket.socketpair()
    async with vmm(on, features=ANNOUNCES) as machine:
        with ours, theirs:
            # No acks over it.
            protocol = page.ALL_SERVED & ~page.REPLY_ACK
            await machine.front_end.send(page.SET_PROTOCOL_FEATURES, page.u64(protocol))
            await machine.front_end.send(page.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
            await machine.start()
            await on.device.switching.switch(LoopDevice)
            assert await status(machine) == 3
            assert await interrupts(ours) == 1
            assert await machine.command(ACK) == OK
            assert await status(machine) == 1


async def test_a_guest_whose_vmm_keeps_its_control_queue(on: BackEnd) -> None:
    async with vmm(on, queues=2, features=FIRMWARE) as machine:
        await machine.start()
        async with traffic(machine, 1):
            report = await on.device.switching.switch(to(other := LoopDevice()))
        assert (report.outcome, report.commands) == (Outcome.RESTORED, 0)
        # Opened wide, as at any start.
        assert other.net.settings()["rx"]["promisc"] is True


async def test_memory_that_is_marked_at_stops_is_at_a_switch() -> None:
    with log_file(1 << 31 >> 15) as log:
        async with back_end(NeverSuspended(), in_order=True) as on, vmm(on) as machine:
            await machine.start()
            await machine.log(log)
            assert await machine.loop(b"packet") == b"packet"
            assert pages_in(log) == set()
            await on.device.switching.switch(NeverSuspended)
            # What the first has written.
            pages = machine.guest.pages
            assert pages_in(log) == pages
            logged = on.device.logged
            assert logged is not None
            assert logged.pages >= len(pages)
            await machine.stop()
            assert on.device.logged is not None
            assert on.device.logged.pages >= 2 * len(pages)
            await machine.log_no_more()


@pytest.mark.parametrize("first", [LoopDevice, NeverResumed])
@pytest.mark.parametrize("other", [LoopDevice, NeverResumed])
async def test_queues_that_are_relayed_are_relayed_by_the_other(
    first: type[LoopDevice], other: type[LoopDevice]
) -> None:
    with log_file(1 << 31 >> 15) as log:
        async with back_end(first()) as on, vmm(on) as machine:
            await machine.start()
            await machine.log(log)
            async with traffic(machine):
                await on.device.switching.switch(other)
                assert on.device.logged is not None
                assert on.device.logged.way == "relay"
                os.pwrite(log, bytes(1 << 16), 0)
            assert used_ring(machine.guest, 0) | used_ring(machine.guest, 2) <= pages_in(log)
            assert pages_in(log) != machine.guest.pages
            await machine.stop()
            assert on.device.logged.way == "relay"
            await machine.log_no_more()


# --- nobody runs ---


async def test_where_nobody_is_it_is_in_place_at_once(on: BackEnd, heard: Heard) -> None:
    report = await on.device.switching.switch(to(other := named(LoopDevice(), "other")))
    assert (report.outcome, report.commands, report.paused_us) == (Outcome.RESTORED, 0, 0)
    assert on.device.device_name == "other"
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.loop(b"packet") == b"packet"
        assert other.packets == 1


async def test_a_guest_that_stands_still_goes_on_with_the_other(on: BackEnd, heard: Heard) -> None:
    async with vmm(on) as machine:
        await set_up(machine)
        assert await machine.loop(b"packet") == b"packet"
        bases = await machine.stop()
        report = await on.device.switching.switch(to(other := LoopDevice()))
        assert (report.commands, report.paused_us) == (3, 0)
        await machine.set_up_rings(bases)
        await machine.enable_all()
        assert await machine.loop(b"second") == b"second"
        assert other.net.settings()["vlans"] == [7]


async def test_a_guest_that_stands_still_is_logged_in_the_same_way(on: BackEnd) -> None:
    """What the device before has marked the other one need not."""
    with log_file(1 << 31 >> 15) as log:
        async with vmm(on) as machine:
            await machine.start()
            await machine.log(log)
            assert await machine.loop(b"packet") == b"packet"
            await machine.stop()
            before = on.device.logged
            assert before is not None
            assert before.way == "relay"
            await on.device.switching.switch(LoopDevice)
            assert on.device.logged == before
            await machine.log_no_more()


# --- it does not ---


async def test_a_device_that_does_not_open_is_given_up(
    on: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "_PATIENCE", 0.01)
    may_open, opened = threading.Event(), LoopDevice()
    closed = threading.Event()
    close = opened.close

    def slowly() -> ShadowedDevice:
        may_open.wait()
        return opened

    def told_close() -> None:
        close()
        closed.set()

    monkeypatch.setattr(opened, "close", told_close)
    async with vmm(on) as machine:
        await machine.start()
        with pytest.raises(CannotSwitch, match="expected the other device to open within"):
            await on.device.switching.switch(slowly)
        assert await machine.loop(b"on") == b"on"
        await on.device.switching.switch(to(named(LoopDevice(), "third")))
        assert on.device.device_name == "third"
    may_open.set()
    # What comes late is closed.
    await until(closed.is_set)


async def test_wherever_the_other_fails_the_first_goes_on(heard: Heard) -> None:
    """Each step of the other's, one after the other, until none is left."""
    async with back_end(named(LoopDevice(), "first"), heard) as on, vmm(on) as machine:
        await set_up(machine)
        failed = []
        async with traffic(machine) as flows:
            for number in range(1, 200):
                other = FaultyDevice()
                other.fail_at(number)
                why = await told(on, other)
                if not why:
                    break
                failed.append(other.steps[number - 1])
                # Of one that cannot even be looked at nothing more need be said.
                looked_at = other.steps.count("negotiate") > 1
                assert f"{failed[-1]} was refused{'; first goes on' * looked_at}" in why
                assert on.device.device_name == "first"
                assert (on.device.status, on.device.failure) == (Status.RUNNING, "")
                for flow in flows:
                    await flow.gone_on()
                assert await machine.command(RxPromisc(on=False).encode()) == OK
        assert {*failed} >= {"negotiate", "map", "set_vring", "start", "control_queue", "enable"}
        # What comes once it has taken over is of no matter.
        assert on.device.device_name == other.name == "loop"
        assert await machine.command(VlanAdd(8).encode()) == OK
    assert seen(heard) == ["failed"] * len(failed) + ["switched"]
    assert on.refusals == []


async def test_wherever_the_first_fails_it_goes_on(heard: Heard) -> None:
    first = FaultyDevice()
    async with back_end(first, heard) as on, vmm(on) as machine:
        await set_up(machine)
        failed = []
        async with traffic(machine) as flows:
            for number in range(1, 20):
                first.fail_at(number)
                if not await told(on, LoopDevice()):
                    break
                failed.append(first.steps[number - 1])
                assert on.device.status is Status.RUNNING
                for flow in flows:
                    await flow.gone_on()
        assert failed == ["suspend", *["base"] * 8]
        assert await machine.command(VlanAdd(8).encode()) == OK
    assert on.refusals == []


class Refusing(LoopDevice):
    """Refuses a VLAN at the n-th of its starts."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def start(self) -> None:
        super().start()
        self._at -= 1
        if not self._at:
            serve = self.net.command
            self.net.command = (  # type: ignore[method-assign]
                lambda readable: 1 if readable == VlanAdd(7).encode() else serve(readable)
            )


@pytest.mark.parametrize("at", [1, 2])
async def test_a_command_that_the_other_refuses_is_told(heard: Heard, at: int) -> None:
    """In the rehearsal, and where only the take-over shows it."""
    async with back_end(named(LoopDevice(), "first"), heard) as on, vmm(on) as machine:
        await set_up(machine)
        async with traffic(machine) as flows:
            with pytest.raises(NotRestored, match="VLAN_ADD vid=7; first goes on") as caught:
                await on.device.switching.switch(lambda: Refusing(at))
            assert caught.value.report is not None
            assert [line.command for line in caught.value.report.rejected] == ["VLAN_ADD"]
            for flow in flows:
                await flow.gone_on()
        assert settings(on)["vlans"] == [7]
    assert seen(heard) == ["failed"]


class RefusingLater(Refusing, FaultyDevice):
    """Refuses a VLAN at its second start, and waits where it is told to."""


async def test_a_state_that_comes_after_the_rehearsal_is_tried_too(
    on: BackEnd, heard: Heard
) -> None:
    other = RefusingLater(at=2)
    gate = other.wait_at("start")
    switching = asyncio.create_task(on.device.switching.switch(to(named(other, "other"))))
    await until(gate.reached.is_set)
    text = '{"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [7]}'
    loaded = MovedState(NetState.model_validate_json(text), (), {})
    await on.device.moving.take(loaded, tried=True)
    gate.open()
    with pytest.raises(NotRestored, match="VLAN_ADD vid=7; loop goes on"):
        await switching
    assert on.device.device_name == "loop"
    assert seen(heard) == ["failed"]
    # What it was tried with once is not tried again.
    await on.device.switching.switch(to(takes := FaultyDevice()))
    assert takes.steps.count("start") == 1


class LateRefusing(Conforming):
    """Refuses the coalescing of a queue, for which it must work first."""

    starts = 0

    def start(self) -> None:
        super().start()
        self.starts += 1
        self.refuses = {CoalVqSet(3, 8, 9).encode()} if self.starts == 2 else set()


async def test_a_device_that_has_served_rings_gives_them_back() -> None:
    """What is taken of queues that work comes when packets have gone already."""
    other = LateRefusing()
    async with back_end(Conforming()) as on, vmm(on, features=COALESCES) as machine:
        await machine.start()
        assert await machine.command(CoalVqSet(3, 8, 9).encode()) == OK
        async with traffic(machine) as flows:
            with pytest.raises(NotRestored, match="NOTF_COAL_VQ_SET"):
                await on.device.switching.switch(to(other))
            for flow in flows:
                await flow.gone_on()


async def test_where_neither_goes_on_the_guest_is_told(heard: Heard) -> None:
    first, other = FaultyDevice(), FaultyDevice()

    def breaks(step: str) -> None:
        if step == "negotiate":
            raise Broke("gone")

    other.before = lambda step: breaks(step) if other.steps.count("negotiate") == 3 else None
    async with back_end(first, heard) as on, vmm(on) as machine:
        await set_up(machine)
        first.before = breaks
        with pytest.raises(CannotSwitch, match="gone; nor does loop go on: gone; reset the guest"):
            await on.device.switching.switch(to(other))
        assert on.device.status is Status.FAILED
        assert on.device.needs_reset
        assert heard.config_changes == 1
        first.before = lambda step: None
        # It is as after any stop: the rings stand where they stood.
        bases = await machine.stop()
        assert bases == [0] * 8 + [3]
        await machine.set_up_rings(bases)
        await machine.enable_all()
        assert not on.device.failure
        assert await machine.loop(b"packet") == b"packet"


LACKS: dict[str, tuple[NetConfig, FeatureSet, str, str]] = {
    "a feature": (PACKET_CONFIG, PACKET_FEATURES - {Feature.RSS}, "features", "RSS"),
    "queues": (
        replace(PACKET_CONFIG, max_virtqueue_pairs=2),
        PACKET_FEATURES,
        "max_virtqueue_pairs",
        "2 queue pairs",
    ),
    "more queues": (
        replace(PACKET_CONFIG, max_virtqueue_pairs=8),
        PACKET_FEATURES,
        "max_virtqueue_pairs",
        "8 queue pairs",
    ),
    "mtu": (replace(PACKET_CONFIG, mtu=1400), PACKET_FEATURES, "mtu", "1400 bytes"),
    "a key": (
        replace(PACKET_CONFIG, rss_max_key_size=8),
        PACKET_FEATURES,
        "rss_max_key_size",
        "8; the device in use has 40",
    ),
    "hashes": (
        replace(PACKET_CONFIG, supported_hash_types=frozenset()),
        PACKET_FEATURES,
        "supported_hash_types",
        "hashes over types",
    ),
}


@pytest.mark.parametrize("what", LACKS)
async def test_what_the_other_lacks_is_told(on: BackEnd, what: str) -> None:
    config, features, path, told = LACKS[what]
    async with vmm(on) as machine:
        await machine.start()
        with pytest.raises(NotRestored, match=told) as caught:
            await on.device.switching.switch(lambda: LoopDevice(config, features))
        assert path in [problem.path for problem in caught.value.problems]
        assert await machine.loop(b"packet") == b"packet"


class Small(LoopDevice):
    """Takes rings of 8 entries."""

    def largest_ring(self, queue: int) -> int:
        return 8


async def test_rings_that_are_too_large_are_refused_before_anything_stops(heard: Heard) -> None:
    first = FaultyDevice()
    async with back_end(first, heard) as on, vmm(on) as machine:
        await machine.start()
        with pytest.raises(CannotSwitch, match="at most 8 entries"):
            await on.device.switching.switch(Small)
        assert "suspend" not in first.steps


class Unpinned(LoopDevice):
    """Cannot pin the guest's memory as well."""

    def map(self, region: Region, view: memoryview) -> None:
        raise MemoryLimit("expected a larger RLIMIT_MEMLOCK; raise LimitMEMLOCK=")


async def test_memory_that_may_not_be_pinned_twice_is_refused_so(heard: Heard) -> None:
    async with back_end(named(LoopDevice(), "first"), heard) as on, vmm(on) as machine:
        await set_up(machine)
        with pytest.raises(MayNotSwitch, match="LimitMEMLOCK=; first goes on as before"):
            await on.device.switching.switch(Unpinned)
        assert on.device.device_name == "first"
        assert await machine.command(VlanAdd(8).encode()) == OK
    assert seen(heard) == ["failed"]


async def test_a_guest_that_needs_a_reset_has_none_other(
    on: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vmm(on) as machine:
        await machine.start()
        on.device._lifecycle.fail(Broke("as where it says so itself"))
        with pytest.raises(CannotSwitch, match="told that its device needs a reset"):
            await on.device.switching.switch(LoopDevice)


# --- what comes in between ---


async def test_one_at_a_time(on: BackEnd) -> None:
    other = FaultyDevice()
    gate = other.wait_at("map")
    first = asyncio.create_task(on.device.switching.switch(to(other)))
    await until(gate.reached.is_set)
    with pytest.raises(SwitchUnderWay):
        await on.device.switching.switch(LoopDevice)
    gate.open()
    await first
    await on.device.switching.switch(LoopDevice)


async def test_it_goes_on_where_nobody_waits_for_it(on: BackEnd, heard: Heard) -> None:
    other = FaultyDevice()
    gate = other.wait_at("negotiate", 2)
    asking = asyncio.create_task(on.device.switching.switch(to(other)))
    await until(gate.reached.is_set)
    asking.cancel()
    await asyncio.wait([asking])
    gate.open()
    await until(lambda: seen(heard) == ["switched"])


# The other's steps in which it waits while the front end does something: when memory is mapped,
# in the rehearsal, and where it takes over.
MOMENTS = [("map", 1), ("map", 7), ("start", 1), ("start", 2), ("enable", 3)]


@pytest.mark.parametrize(("step", "nth"), MOMENTS)
async def test_a_front_end_that_goes_away_meanwhile(
    on: BackEnd, heard: Heard, step: str, nth: int
) -> None:
    other = FaultyDevice()
    named(other, "other")
    gate = other.wait_at(step, nth)
    async with vmm(on) as machine:
        await set_up(machine)
        switching = asyncio.create_task(on.device.switching.switch(to(other)))
        await until(gate.reached.is_set)
        machine.front_end.close()
        await asyncio.sleep(0.02)
        gate.open()
        await switching
    assert on.device.device_name == "other"
    assert not on.device.is_running
    assert seen(heard) == ["switched"]
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.loop(b"packet") == b"packet"


@pytest.mark.parametrize(("step", "nth"), MOMENTS)
async def test_a_front_end_that_pauses_meanwhile(on: BackEnd, step: str, nth: int) -> None:
    other = FaultyDevice()
    gate = other.wait_at(step, nth)
    async with vmm(on) as machine:
        await set_up(machine)
        switching = asyncio.create_task(on.device.switching.switch(to(other)))
        await until(gate.reached.is_set)
        pausing = asyncio.create_task(machine.pause())
        await asyncio.sleep(0.02)
        gate.open()
        await asyncio.gather(switching, pausing)
        assert await machine.loop(b"packet") == b"packet"
        assert settings(on)["vlans"] == [7]
        assert other.net.settings()["vlans"] == [7]


async def test_a_front_end_that_is_starting_meanwhile() -> None:
    first, other = FaultyDevice(), FaultyDevice()
    async with back_end(first) as on, vmm(on) as machine:
        await set_up(machine)
        bases = await machine.stop()
        await machine.set_up_rings(bases)
        gate = first.wait_at("enable")
        starting = asyncio.create_task(machine.enable_all())
        await until(gate.reached.is_set)
        assert on.device.is_running
        switching = asyncio.create_task(on.device.switching.switch(to(other)))
        # It is rehearsed, and then waits for its turn.
        await until(
            lambda: (
                switching.done() or ("start" in other.steps and other.status() == DeviceStatus(0))
            )
        )
        gate.open()
        await asyncio.gather(switching, starting)
        assert await machine.loop(b"packet") == b"packet"
        assert other.net.settings()["vlans"] == [7]


async def test_memory_that_comes_and_goes_meanwhile(on: BackEnd) -> None:
    other = FaultyDevice()
    gate = other.wait_at("start")
    plugged = shared_region(0x9000_0000)
    where = page.single(plugged.start, plugged.size, 0x7F00_0000_0000, 0)
    async with vmm(on) as machine:
        await machine.start()
        switching = asyncio.create_task(on.device.switching.switch(to(other)))
        await until(gate.reached.is_set)
        await machine.front_end.done(page.ADD_MEM_REG, where, [plugged.fd])
        gate.open()
        await switching
        assert other._memory.read(plugged.start, 1) == bytes(1)
        await machine.front_end.done(page.REM_MEM_REG, where, [plugged.fd])
    plugged.close()
