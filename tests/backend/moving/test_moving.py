"""A guest that moves from one back end's device to another's, by the tests' own front end."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.backend.moving.faulty_device import FaultyDevice
from tests.backend.vmm import (
    ERR,
    OK,
    OTHER_MAC,
    BackEnd,
    Heard,
    Vmm,
    back_end,
    settings,
    vmm,
)
from tests.support.descriptors import no_descriptor_left
from tests.support.guest import Guest
from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import mappings
from tests.vhost_user.log_file import log_file
from vdpad.backend.events import StateLoaded, StateSaved
from vdpad.backend.faults import DeviceRuns
from vdpad.backend.moving.moving import MovedState
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.state.formats import device_state
from vdpad.state.model import NetState
from vdpad.virtio.commands import Command, MacAddrSet, MqPairsSet, RxPromisc, VlanAdd
from vdpad.virtio.features import Feature, FeatureSet

COMMANDS: tuple[Command, ...] = (
    MqPairsSet(2),
    RxPromisc(on=False),
    VlanAdd(7),
    VlanAdd(8),
    MacAddrSet(OTHER_MAC),
)
WITHOUT_CVQ: FeatureSet = frozenset({Feature.VERSION_1, Feature.MAC, Feature.STATUS})
WITHOUT_MQ: FeatureSet = WITHOUT_CVQ | {Feature.CTRL_VQ, Feature.CTRL_VLAN}
"""As a VMM has them that keeps the CVQ to itself."""
LOG_SIZE = 1 << 31 >> 15
"""Of all the guest's memory."""


class Counting(LoopDevice):
    """Counts how often it came to DRIVER_OK, and how many of its rings were set."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.starts = 0
        self.rings = 0

    def start(self) -> None:
        self.starts += 1
        super().start()

    def set_vring(self, queue: int, vring: Vring) -> None:
        self.rings += 1
        super().set_vring(queue, vring)


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    before = mappings()
    with no_descriptor_left():
        yield
    assert mappings() == before


async def left(source: BackEnd, guest: Guest, commands: tuple[Command, ...] = COMMANDS) -> bytes:
    """The state of a guest that has set all this, after its VMM has stopped it."""
    async with vmm(source, guest=guest) as machine:
        await machine.start()
        for command in commands:
            assert await machine.command(command.encode()) == OK
        await machine.stop()
        await machine.front_end.done(page.SET_STATUS, page.u64(0))
        return await machine.save()


async def arrive(machine: Vmm, bases: list[int]) -> None:
    """What a destination does once the state is there."""
    await machine.start(bases)


async def test_a_guest_moves_with_all_that_it_has_set() -> None:
    guest = Guest(9)
    told_source, told = Heard(), Heard()
    device = Counting()
    async with back_end(heard=told_source) as source, back_end(device, told) as destination:
        data = await left(source, guest)
        assert told_source.events == [StateSaved("nic0", len(data))]
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            # It was tried, with a ring for each data queue, and the device is reset.
            assert (device.starts, device.rings) == (1, 8)
            assert device.status() == 0
            (loaded,) = told.events
            assert isinstance(loaded, StateLoaded)
            assert (loaded.rehearsed, loaded.commands) == (True, 5)
            assert loaded.duration_us > 0
            await arrive(machine, [0] * 8 + [5])
            assert settings(destination) == settings(source)
            assert device.net.settings()["vlans"] == [7, 8]
            # As the device refuses an id that it has.
            assert await machine.command(VlanAdd(7).encode()) == ERR
            assert await machine.loop(b"packet", pair=1) == b"packet"
            await machine.stop()
    guest.close()


async def test_what_leaves_is_a_document_with_all_that_is_known() -> None:
    guest = Guest(9)
    # No state can say this one.
    unknown = bytes((9, 0, 1))

    class Obliging(LoopDevice):
        """Acks what it does not know."""

        def negotiate(self, features: FeatureSet) -> None:
            super().negotiate(features)
            serve = self.net.command
            self.net.command = (  # type: ignore[method-assign]
                lambda readable: 0 if readable == unknown else serve(readable)
            )

    async with back_end(Obliging()) as source, vmm(source, guest=guest) as machine:
        await machine.start()
        assert await machine.command(unknown) == OK
        assert await machine.command(VlanAdd(7).encode()) == OK
        await machine.stop()
        document = json.loads(await machine.save())
        # Nothing has changed by it: the guest may go on where it is.
        await machine.set_up_rings([0] * 8 + [2])
        await machine.enable_all()
        assert settings(source)["vlans"] == [7]
    guest.close()
    assert document["writer"]["back_end"] == "nic0"
    assert document["writer"]["device"] == "loop"
    assert document["state"]["vlans"] == [7]
    assert [each["part"] for each in document["missing"]] == ["class 9"]
    assert document["rings"][-1] == {"queue": 8, "base": 2}


async def test_what_is_missing_stays_missing() -> None:
    guest = Guest(9)
    async with back_end() as source, back_end() as destination:
        document = json.loads(await left(source, guest))
        document["missing"] = [{"part": "class 9", "why": "nobody knows it"}]
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(json.dumps(document).encode()) == 0
            await machine.set_up([0] * 8 + [5])
            moved_on = json.loads(await machine.save())
    guest.close()
    assert moved_on["missing"] == document["missing"]
    assert moved_on["state"] == document["state"]
    assert moved_on["rings"] == document["rings"]


@pytest.mark.parametrize("rehearses", [True, False])
async def test_a_vmm_that_keeps_the_control_queue_moves_what_is_known(rehearses: bool) -> None:
    guest = Guest(2, event_idx=False)
    device = Counting()
    async with back_end() as source, back_end(device, rehearses=rehearses) as destination:
        async with vmm(source, guest=guest, features=WITHOUT_CVQ) as machine:
            await machine.start()
            assert await machine.loop(b"packet") == b"packet"
            bases = await machine.stop()
            data = await machine.save()
        assert device_state.bases_of(device_state.decode(data).rings) == {0: 1, 1: 1}
        assert bases == [1, 1]
        async with vmm(destination, guest=guest, features=WITHOUT_CVQ) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            assert device.starts == rehearses
            await arrive(machine, bases)
            assert await machine.loop(b"again") == b"again"
    guest.close()


async def test_a_source_that_knows_of_no_guest() -> None:
    async with back_end() as source, vmm(source) as machine:
        await machine.agree()
        data = await machine.save()
        assert "state" not in json.loads(data)
        assert await machine.load(data) == 0
        await machine.start()
        assert await machine.command(VlanAdd(7).encode()) == OK


async def test_a_guest_that_begins_anew_has_set_nothing_whatever_came() -> None:
    source_guest = Guest(9)
    async with back_end() as source, back_end() as destination:
        data = await left(source, source_guest)
        async with vmm(destination) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            await machine.start()
            assert "vlans" not in settings(destination)
            assert await machine.command(VlanAdd(7).encode()) == OK
    source_guest.close()


async def test_where_the_front_end_does_not_know_the_guest_s_rings_tell_that_it_goes_on() -> None:
    guest = Guest(9)
    async with back_end() as source, back_end() as destination:
        data = await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            await machine.start()
            assert settings(destination)["vlans"] == [7, 8]
            assert await machine.command(VlanAdd(9).encode()) == OK
    guest.close()


async def test_a_guest_for_which_nothing_came_is_not_told_as_one_that_has_set_nothing() -> None:
    guest = Guest(9)
    async with back_end() as source, back_end() as destination:
        await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.start()
            found = destination.device.settings.found()
            assert found is not None
            assert [each.part for each in found.missing] == ["settings"]
            assert await machine.command(VlanAdd(9).encode()) == OK
            assert settings(destination)["vlans"] == [9]
            await machine.stop()
            (missing,) = json.loads(await machine.save())["missing"]
            assert missing["part"] == "settings"
            assert "went on here without a state" in missing["why"]
    guest.close()


@pytest.mark.parametrize("features", [WITHOUT_MQ, WITHOUT_CVQ])
async def test_one_that_begins_anew_or_has_no_control_queue_misses_nothing(
    features: FeatureSet,
) -> None:
    goes_on = Feature.CTRL_VQ not in features
    async with back_end() as on, vmm(on, queues=3 - goes_on, features=features) as machine:
        await machine.start([4, 4] if goes_on else None)
        found = on.device.settings.found()
        assert found is not None
        assert found.missing == ()


# --- what is not taken ---


class Picky(Counting):
    """Refuses one VLAN, or answers nothing any more from then on."""

    def negotiate(self, features: FeatureSet) -> None:
        super().negotiate(features)
        serve = self.net.command
        self.net.command = (  # type: ignore[method-assign]
            lambda readable: 1 if readable == VlanAdd(8).encode() else serve(readable)
        )


async def test_a_device_that_refuses_a_command_does_not_get_the_guest() -> None:
    guest = Guest(9)
    device = Picky()
    async with back_end() as source, back_end(device) as destination:
        data = await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) != 0
            (refusal,) = destination.refusals
            assert refusal.startswith("CHECK_DEVICE_STATE: ")
            assert "VLAN_ADD vid=8" in refusal
            report = destination.device.report
            assert report is not None
            assert [each.arguments for each in report.rejected] == ["vid=8"]
            assert device.status() == 0
            # Neither with what a guest before had set nor with nothing.
            await machine.set_up([0] * 8 + [5])
            assert [
                await machine.front_end.acked(page.SET_VRING_ENABLE, page.state(i, 1))
                for i in range(9)
            ][-1] == 1
            assert "was not taken" in destination.refusals[-1]
        # The guest goes on where it was.
        async with vmm(source, guest=guest) as machine:
            await machine.start([0] * 8 + [5])
            assert settings(source)["vlans"] == [7, 8]
            assert await machine.command(VlanAdd(9).encode()) == OK
        # And the device is good for a guest that begins anew.
        async with vmm(destination) as machine:
            await machine.start()
            assert await machine.command(VlanAdd(7).encode()) == OK
    guest.close()


SMALLER = replace(PACKET_CONFIG, max_virtqueue_pairs=1)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (lambda: Counting(net=SMALLER), "2 queue pairs; the device takes 1"),
        (
            lambda: Counting(features=PACKET_FEATURES - {Feature.CTRL_VLAN}),
            "the guest negotiated CTRL_VLAN; the device has not",
        ),
        (
            lambda: Counting(features=PACKET_FEATURES - {Feature.STATUS}),
            "the guest negotiated STATUS; the device has not",
        ),
    ],
)
async def test_what_does_not_fit_the_device_is_not_tried(device: Any, why: str) -> None:
    guest = Guest(9)
    tried = device()
    async with back_end() as source, back_end(tried) as destination:
        data = await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) != 0
        assert why in destination.refusals[0]
        assert tried.starts == 0
    guest.close()


async def test_without_a_rehearsal_the_device_is_left_alone() -> None:
    guest = Guest(9)
    device = Picky()
    async with back_end() as source, back_end(device, rehearses=False) as destination:
        data = await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            assert device.starts == 0
            # The start finds out, and the guest does not have the device.
            await machine.set_up([0] * 8 + [5])
            last = [
                await machine.front_end.acked(page.SET_VRING_ENABLE, page.state(index, 1))
                for index in range(9)
            ]
            assert last == [0] * 8 + [1]
            assert "VLAN_ADD vid=8" in destination.refusals[-1]
    guest.close()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "got no byte"),
        (b"what is none", "UTF-8 JSON"),
        (b'{"format": "vdpad-device-state", "vers', "or one that was cut"),
        (b'{"format": "vdpad-device-state", "version": 2}', "a later vdpad wrote"),
        (b"{" * (device_state.MAX_SIZE + 100_000), "at most"),
    ],
)
async def test_what_is_no_state_is_refused(data: bytes, why: str) -> None:
    device = Counting()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.agree()
        assert await machine.load(data) != 0
        assert why in on.refusals[0]
        assert device.starts == 0
        # What comes then is taken.
        await machine.start()
        assert await machine.command(VlanAdd(7).encode()) == OK


async def test_a_state_that_comes_while_a_guest_has_the_device_is_refused() -> None:
    async with back_end() as on, vmm(on) as machine:
        await machine.agree()
        data = await machine.save()
        reader, writer = os.pipe()
        loading = page.state(1, 0)
        assert await machine.front_end.number(page.SET_DEVICE_STATE_FD, loading, [reader]) == 256
        await machine.start()
        assert await machine.command(VlanAdd(7).encode()) == OK
        os.write(writer, data)
        os.close(writer)
        os.close(reader)
        assert await machine.front_end.number(page.CHECK_DEVICE_STATE) != 0
        assert "a guest has it" in on.refusals[0]
        # It keeps what it has set.
        assert settings(on)["vlans"] == [7]
        await machine.pause()
        assert settings(on)["vlans"] == [7]


async def _stands_still_amid_a_migration(machine: Vmm, log: int) -> list[int]:
    """A guest that has set something, and the bases where it was stopped for good or not."""
    await machine.start()
    assert await machine.command(VlanAdd(7).encode()) == OK
    await machine.log(log)
    return await machine.stop()


async def test_a_guest_that_is_about_to_leave_keeps_what_it_has_set() -> None:
    other = NetState(version=1, features=frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN}))
    async with back_end() as on, vmm(on) as machine:
        with log_file(LOG_SIZE) as log:
            bases = await _stands_still_amid_a_migration(machine, log)
            document = await machine.save()
            with pytest.raises(DeviceRuns, match="its memory is logged"):
                await on.device.moving.take(MovedState(other, (), {}), tried=True)
            # By the VMM's stream neither.
            assert await machine.load(document) != 0
            assert "its memory is logged" in on.refusals[0]
            assert settings(on)["vlans"] == [7]
            # The migration fails, and it goes on where it was.
            await machine.log_no_more()
            await machine.set_up_rings(bases)
            await machine.enable_all()
            assert settings(on)["vlans"] == [7]
            assert await machine.command(VlanAdd(8).encode()) == OK
        await machine.stop()
        # Without a migration it may be another's.
        await on.device.moving.take(MovedState(other, (), {}), tried=True)
        assert "vlans" not in settings(on)


async def test_a_migration_that_begins_amid_a_rehearsal_is_the_guest_s() -> None:
    other = NetState(version=1, features=frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN}))
    device = FaultyDevice()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(7).encode()) == OK
        await machine.stop()
        gate = device.wait_at("start")
        trying = asyncio.create_task(on.device.moving.take(MovedState(other, (), {}), tried=True))
        await asyncio.to_thread(gate.reached.wait)
        with log_file(LOG_SIZE) as log:
            await machine.log(log)
            gate.open()
            with pytest.raises(DeviceRuns, match="its memory is logged"):
                await trying
            assert settings(on)["vlans"] == [7]


async def test_settings_that_no_state_can_say_do_not_leave() -> None:
    multicast = bytes.fromhex("010000000001")

    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        on.device.settings.acknowledged(MacAddrSet(multicast).encode(), OK)
        await machine.stop()
        reader, writer = os.pipe()
        saving = page.state(0, 0)
        assert await machine.front_end.number(page.SET_DEVICE_STATE_FD, saving, [writer]) == 256
        os.close(writer)
        assert await asyncio.to_thread(os.read, reader, 100) == b""
        os.close(reader)
        assert await machine.front_end.number(page.CHECK_DEVICE_STATE) != 0
        assert "no state can say" in on.refusals[0]


# --- a front end that goes ---


async def test_a_front_end_goes_in_the_midst_of_everything() -> None:
    """At each message of a destination's, and with a state that is cut at some bytes."""
    guest = Guest(9)
    device = Counting()
    async with back_end() as source, back_end(device) as destination:
        data = await left(source, guest)
        for sent in (0, 1, len(data) // 2, len(data)):
            for asks in (False, True):
                async with vmm(destination, guest=guest) as machine:
                    await machine.agree()
                    reader, writer = os.pipe()
                    loading = page.state(1, 0)
                    front_end = machine.front_end
                    assert (
                        await front_end.number(page.SET_DEVICE_STATE_FD, loading, [reader]) == 256
                    )
                    os.close(reader)
                    os.write(writer, data[:sent])
                    if asks:
                        await front_end.send(page.CHECK_DEVICE_STATE)
                os.close(writer)
                assert device.status() == 0
                assert not destination.device.moving.turn.locked()
        async with vmm(destination, guest=guest) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            await arrive(machine, [0] * 8 + [5])
            assert settings(destination)["vlans"] == [7, 8]
    guest.close()


async def test_a_start_waits_for_a_rehearsal() -> None:
    guest = Guest(9)
    device = Counting()
    async with back_end() as source, back_end(device) as destination:
        data = await left(source, guest)
        async with vmm(destination, guest=guest) as machine:
            await machine.set_up([0] * 8 + [5])
            document = device_state.decode(data)
            moved = MovedState(document.state, (), {})
            trying = asyncio.create_task(destination.device.moving.take(moved, tried=True))
            await asyncio.sleep(0)
            await machine.enable_all()
            assert (await trying) is not None
            assert device.starts == 2
            assert settings(destination)["vlans"] == [7, 8]
    guest.close()
