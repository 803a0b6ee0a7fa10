"""Rings of legacy devices: a device that goes by where buffers begin understands what is sent.

That is the tests' own: the software device behind a look at each chain's buffers, by the letter of
virtio 1.4, 5.1.6.6 "Legacy Interface: Framing Requirements".
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.devices import borrowed, config, running, send
from tests.support.marks import with_and_without_event_idx
from vdpad.queues.software.misbehaviour import Fault, Order
from vdpad.restore.program import check_room, encode
from vdpad.restore.replay import Outcome, replay
from vdpad.virtio.chains import BadChain, Buffer
from vdpad.virtio.commands import AnnounceAck, MacTableSet, RxAllMulti, VlanAdd
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import Chain, copied
from vdpad.virtio.features import Feature
from vdpad.virtio.framing import is_legacy
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import DESC_F_WRITE, BadGeometry, Region
from vdpad.virtio.split_ring import lay_out

FREE = frozenset({Feature.VERSION_1, Feature.ANY_LAYOUT})
MAC = bytes.fromhex("525400000001")
GROUP = bytes.fromhex("01005e000001")
TABLES = tuple(
    MacTableSet((MAC,) * unicast, (GROUP,) * multicast)
    for unicast in (0, 1, 64)
    for multicast in (0, 1, 64)
)
COMMANDS = (*mixed(40), *TABLES, AnnounceAck(), RxAllMulti(on=True), VlanAdd(4000))
"""Of no data, of one buffer of it, and of two."""


def refuse_others(buffers: list[Buffer], memory: GuestMemory) -> None:
    """Raises BadChain at what a legacy device need not understand."""
    *readable, ack = buffers
    sizes = [length for _, length, flags, _ in readable if not flags & DESC_F_WRITE]
    header, *data = sizes or [0]
    if len(sizes) < len(readable) or not ack[2] & DESC_F_WRITE or ack[1] != 1:
        raise BadChain(f"expected one descriptor of 1 byte for the ack, got {buffers}")
    if header != 2:
        raise BadChain(f"expected class and command in one descriptor, got {sizes}")
    code = memory.read(readable[0][0], 2)
    if code != bytes(MacTableSet.CODE):
        if len(data) != (code != bytes(AnnounceAck.CODE)):
            raise BadChain(f"expected one descriptor for the data, got {sizes}")
        return
    for address, length, _, _ in readable[1:]:
        entries = int.from_bytes(memory.read(address, 4), "little")
        if length != 4 + 6 * entries:
            raise BadChain(f"expected a table with no padding, got {sizes}")
    if len(data) != 2:
        raise BadChain(f"expected a descriptor for each table, got {sizes}")


@pytest.fixture(autouse=True)
def _by_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on devices with split rings are legacy ones."""

    def looked_at(
        memory: GuestMemory, head: int, buffers: Iterable[Buffer], *, answered: bool
    ) -> tuple[Chain, int]:
        all_of_them = list(buffers)
        refuse_others(all_of_them, memory)
        return copied(memory, head, all_of_them, answered=answered)

    monkeypatch.setattr("vdpad.virtio.device_ring.copied", looked_at)
    # It takes chains of two descriptors a shorter way.
    monkeypatch.setattr(DeviceRing, "_command", lambda _ring, _head: None)


@with_and_without_event_idx
@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("size", [4, 8, 64, 256])
async def test_every_command_is_understood(size: int, order: Order, event_idx: bool) -> None:
    made = config(ring_size=size, event_idx=event_idx, order=order, start_index=65530)
    configured = replace(made, features=made.features - FREE)
    async with running(configured) as device:
        sent = await send(device, COMMANDS)
        assert sent.replayed.outcome is Outcome.RESTORED
        assert device.net.settings() == settings_after(configured, COMMANDS)
        assert sent.replayed.next_index == (65530 + len(COMMANDS)) % 65536


@pytest.mark.parametrize("fault", [Fault.ID_NOT_IN_FLIGHT, Fault.ID_TWICE, Fault.RUN_AHEAD])
async def test_a_device_that_lies_is_found_out(fault: Fault) -> None:
    made = config(ring_size=16, event_idx=True, faults={5: fault}, order=Order.REVERSED)
    async with running(replace(made, features=made.features - FREE)) as device:
        assert (await send(device, vlans(30))).replayed.outcome is Outcome.BROKEN


@pytest.mark.parametrize("position", [0, 7, 20])
async def test_what_was_not_answered_is_told(position: int) -> None:
    made = config(ring_size=32, event_idx=True, faults={position: Fault.SILENCE})
    async with running(replace(made, features=made.features - FREE)) as device:
        replayed = (await send(device, vlans(30), seconds=1)).replayed
    assert replayed.outcome is Outcome.INCOMPLETE
    assert replayed.unanswered == tuple(range(position, 30))


async def test_another_framing_is_not_understood() -> None:
    """So that the device above is one that can be failed."""
    made = config(ring_size=64)
    async with running(replace(made, features=made.features - FREE)) as device:
        program = encode(vlans(3), device.geometry, event_idx=False)
        with borrowed(device) as queue:
            deadline = asyncio.get_running_loop().time() + 1
            replayed = await replay(program, queue, deadline=deadline, poll_ns=0)
        assert replayed.unanswered == (0, 1, 2)


@pytest.mark.parametrize("feature", sorted(FREE))
def test_either_feature_leaves_the_framing_to_the_driver(feature: Feature) -> None:
    assert not is_legacy(frozenset({feature, Feature.CTRL_VQ}))
    assert is_legacy(frozenset({Feature.CTRL_VQ}))


def test_the_smallest_ring_has_room_for_the_longest_chain() -> None:
    memory = Region(0x1000, 1 << 16)
    check_room(lay_out(4, memory), legacy=True)
    with pytest.raises(BadGeometry, match=r"at least 4 without VERSION_1 and ANY_LAYOUT, got 2"):
        check_room(lay_out(2, memory), legacy=True)
    with pytest.raises(BadGeometry, match="at least 4"):
        encode(vlans(1), lay_out(2, memory), event_idx=False, legacy=True)
