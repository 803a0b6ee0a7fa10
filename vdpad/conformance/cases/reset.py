"""What a reset leaves, as far as a control queue lets it be seen, and coalescing read back.

Of all settings only two can be read: the address, in the config space, and the coalescing of single
queues. What was forgotten of the VLANs shows on devices that refuse an id twice.
"""

import struct
from collections.abc import Sequence

from vdpad.conformance.answers import word
from vdpad.conformance.bench import Bench, NotApplicable
from vdpad.conformance.case import Case, Check, Level
from vdpad.conformance.commands import clause_of, filler
from vdpad.conformance.odd_layout import OddChain
from vdpad.virtio.commands import (
    ACK_ERR,
    ACK_OK,
    CoalRxSet,
    CoalVqGet,
    CoalVqSet,
    MacAddrSet,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.features import Feature
from vdpad.virtio.mac import format_mac

_RESET = '2.4 "Device Reset"'
_OTHER_ADDRESS = bytes.fromhex("0200000000fe")
_VID = 5
_OTHER_VID = 6
_VALUES = struct.Struct("<II")
_QUEUE = 0


async def _address_is_back(bench: Bench) -> Sequence[str]:
    before = bench.up.config.mac
    if await bench.ack(MacAddrSet(_OTHER_ADDRESS)) != ACK_OK:
        raise NotApplicable("the device does not take MAC_ADDR_SET")
    await bench.reset()
    after = bench.up.config.mac
    await bench.ack(MacAddrSet(before))
    if after == before:
        return ()
    return [f"the address is {format_mac(after)} after a reset, before it was {format_mac(before)}"]


async def _vlan_is_taken_again(bench: Bench) -> Sequence[str]:
    if await bench.ack(VlanAdd(_VID)) != ACK_OK:
        raise NotApplicable("the device does not take VLAN_ADD")
    await bench.reset()
    ack = await bench.ack(VlanAdd(_VID))
    return () if ack == ACK_OK else [f"VLAN_ADD of what was there before the reset: {word(ack)}"]


async def _vlan_is_gone(bench: Bench) -> Sequence[str]:
    if await bench.ack(VlanDel(_OTHER_VID)) != ACK_ERR:
        raise NotApplicable("the device takes VLAN_DEL of an id that it does not have")
    await bench.ack(VlanAdd(_OTHER_VID))
    await bench.reset()
    ack = await bench.ack(VlanDel(_OTHER_VID))
    return () if ack == ACK_ERR else [f"VLAN_DEL of what was there before the reset: {word(ack)}"]


async def _serves_again(bench: Bench) -> Sequence[str]:
    command = filler(bench.up.features, bench.up.config)
    expected = await bench.ack(command)
    chains = [OddChain((command.encode(),))] * (bench.up.geometry.size // 2)
    await bench.exchanged(*chains, seconds=0)
    await bench.reset()
    ack = await bench.ack(command)
    if ack is not None and ack == expected:
        return ()
    return [f"{command.NAME} after the reset: {word(ack)}, and {word(expected)} before"]


# --- coalescing of a queue, which can be read back ---


async def _values(bench: Bench) -> tuple[int, int]:
    """What the device says of the queue: packets, microseconds."""
    chain = OddChain((CoalVqGet(_QUEUE, 0, 0).encode(),), writable=(1 + _VALUES.size,))
    returned = await bench.exchanged(chain)
    if returned.acks() != [ACK_OK]:
        raise NotApplicable("the device does not tell: NOTF_COAL_VQ_GET is not acknowledged")
    packets, usecs = _VALUES.unpack_from(returned.answers[0], 1)
    return packets, usecs


async def _set(bench: Bench, command: CoalVqSet | CoalRxSet) -> None:
    if await bench.ack(command) != ACK_OK:
        raise NotApplicable(f"the device does not take {command.NAME}; no data queue is enabled")


def _told(expected: tuple[int, int], values: tuple[int, int]) -> Sequence[str]:
    said = "queue {}: {} packets and {} µs, expected {} and {}"
    return [said.format(_QUEUE, *values, *expected)] * (values != expected)


async def _is_read_back(bench: Bench) -> Sequence[str]:
    await _set(bench, CoalVqSet(_QUEUE, 16, 25))
    return _told((16, 25), await _values(bench))


async def _last_one_counts(bench: Bench) -> Sequence[str]:
    await _set(bench, CoalVqSet(_QUEUE, 16, 25))
    await _set(bench, CoalRxSet(32, 50))
    return _told((32, 50), await _values(bench))


async def _begins_at_zero(bench: Bench) -> Sequence[str]:
    await _set(bench, CoalVqSet(_QUEUE, 16, 25))
    await bench.reset()
    return _told((0, 0), await _values(bench))


async def _reserved_is_ignored(bench: Bench) -> Sequence[str]:
    plain = CoalVqSet(_QUEUE, 16, 25).encode()
    reserved = plain[:4] + b"\xff\xff" + plain[6:]
    (expected,) = (await bench.exchanged(OddChain((plain,)))).acks()
    (ack,) = (await bench.exchanged(OddChain((reserved,)))).acks()
    said = f"with reserved bits {word(ack)}, and {word(expected)} without"
    return [said] * (ack != expected)


def _of_coalescing(id_: str, title: str, check: Check, *needs: Feature) -> Case:
    features = frozenset({Feature.VQ_NOTF_COAL, *needs})
    return Case(id_, title, clause_of(CoalVqSet), Level.MUST, check, features)


CASES: tuple[Case, ...] = (
    Case(
        "reset.mac",
        "a reset brings back the address that the device had",
        _RESET,
        Level.SHOULD,
        _address_is_back,
        frozenset({Feature.CTRL_MAC_ADDR, Feature.MAC}),
    ),
    Case(
        "reset.vlan-again",
        "a VLAN that was added before a reset is taken again",
        clause_of(VlanAdd),
        Level.MUST,
        _vlan_is_taken_again,
        frozenset({Feature.CTRL_VLAN}),
    ),
    Case(
        "reset.vlan-gone",
        "a reset leaves no VLAN",
        clause_of(VlanAdd),
        Level.MUST,
        _vlan_is_gone,
        frozenset({Feature.CTRL_VLAN}),
    ),
    Case(
        "reset.in-flight",
        "a device that is reset with commands in flight serves again",
        _RESET,
        Level.MUST,
        _serves_again,
    ),
    _of_coalescing("reset.coalescing", "after a reset a queue's coalescing is 0", _begins_at_zero),
    _of_coalescing(
        "notf-coal-vq-get.same", "a queue's coalescing is read as it was set", _is_read_back
    ),
    _of_coalescing(
        "notf-coal-vq-get.last",
        "what was set last counts, for all queues or for one",
        _last_one_counts,
        Feature.NOTF_COAL,
    ),
    _of_coalescing("notf-coal-vq-set.reserved", "reserved is ignored", _reserved_is_ignored),
)
