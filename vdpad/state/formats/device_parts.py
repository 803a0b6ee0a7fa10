"""Device parts, in which virtio 1.4 has a device's state travel, and NetState, both ways.

What a guest set stands in one CVQ_CFG_PART for each command, whose value is the command's data.
VLAN_ADD's is the whole table; how that lies there the specification does not say, and here it is
an array of the command's le16 ids. The guest's features stand in DRV_FEATURES.

decode refuses bytes that are no device parts, and settings that are no data of their command. Then
it takes each setting by itself: one that is not known, or that the guest's features do not permit,
is left out and named, so that the rest is not lost. One that is not known but marked as optional is
passed over: a device works the same without it.

There is no part for tunnel types, guest offloads and coalescing, and no flag for a MAC table that
overflowed. encode names them all. Without its flag a table would shut out what the source let
through, so encode has the receive mode on that lets it through, as a plan of the state would.
decode cannot tell a table that overflowed from one that did not.

Sources: virtio 1.4, "Device parts order" (admin-cmds-device-parts.tex) and the network device's
"Device parts" (device-types/net/description.tex).
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vdpad.state.formats.device_part_settings import SETTINGS
from vdpad.state.found import FormatError, Found, Missing, found_of
from vdpad.state.mac_lists import mac_lists
from vdpad.state.model import Coalescing, NetState, RxModes
from vdpad.state.overflow import opened_for_overflow
from vdpad.virtio.bits import BitNames, bits_of, mask_of
from vdpad.virtio.commands import COMMANDS, AnnounceAck, Command, DecodeError, MacTableSet
from vdpad.virtio.device_parts import DevicePart, PartError, PartType, pull_parts, push_part
from vdpad.virtio.features import FEATURES, Feature, FeatureSet, commanded

__all__ = ["Encoded", "decode", "encode"]

_FEATURE_WORD = 64
_VQ_CFG = struct.Struct("<HHH26x")

_PART_TYPES = frozenset(PartType)

# As many parts that are not known are named; the others are counted.
_MAX_NAMED = 64

# What a guest with these features may have set and no part tells.
_UNTOLD = (
    ("hash_tunnel", Feature.HASH_TUNNEL),
    ("guest_offloads", Feature.CTRL_GUEST_OFFLOADS),
    ("coalescing.rx", Feature.NOTF_COAL),
    ("coalescing.tx", Feature.NOTF_COAL),
    ("coalescing.queues", Feature.VQ_NOTF_COAL),
)


class _StatusBit(IntEnum):
    """The device status field (virtio 1.4, 2.1)."""

    ACKNOWLEDGE = 0
    DRIVER = 1
    DRIVER_OK = 2
    FEATURES_OK = 3
    DEVICE_NEEDS_RESET = 6
    FAILED = 7


_STATUS = BitNames("status", _StatusBit, width=8)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A state as device parts."""

    data: bytes
    missing: tuple[Missing, ...]
    """What the state has and these parts do not carry."""


# --- a state as device parts ---


def encode(state: NetState) -> Encoded:
    """A state as DRV_FEATURES and a part for each setting, in the specification's order.

    A setting whose command the features do not permit has no part, such as a receive mode that is
    off because the device has none: no device would have such a part or take it.
    """
    carried, missing = _without_overflow(state)
    parts = [push_part(PartType.DRV_FEATURES, b"", _push_features(state.features))]
    for command, setting in SETTINGS.items():
        value = setting.push(carried)
        if value is None:
            continue
        lacked = command.lacks(state.features)
        if lacked is None:
            parts.append(push_part(PartType.CVQ_CFG_PART, bytes(command.CODE), value))
        else:
            missing.append(_unpermitted(setting.path, command, lacked))
    missing.extend(_uncarried(state))
    return Encoded(b"".join(parts), tuple(missing))


def _push_features(features: FeatureSet) -> bytes:
    mask = mask_of(features)
    words = max(1, -(-mask.bit_length() // _FEATURE_WORD))
    return mask.to_bytes(words * _FEATURE_WORD // 8, "little")


def _without_overflow(state: NetState) -> tuple[NetState, list[Missing]]:
    """The state with receive modes on that let through what its overflow flags do."""
    opened = opened_for_overflow(state, state.features)
    rx = (state.rx or RxModes()).model_copy(update=dict.fromkeys(opened.values(), True))
    missing = [
        Missing(
            f"mac_table.{half}_overflow",
            f"device parts have no such flag; {mode} is switched on instead",
        )
        for half, mode in opened.items()
    ]
    return state.model_copy(update={"rx": rx} if opened else {}), missing


def _unpermitted(path: str, command: type[Command], lacked: Feature) -> Missing:
    return Missing(path, f"{command.NAME} needs {lacked.name}, which the guest did not negotiate")


def _uncarried(state: NetState) -> Iterator[Missing]:
    coalescing = state.coalescing or Coalescing()
    values = (
        state.hash_tunnel,
        state.guest_offloads,
        coalescing.rx,
        coalescing.tx,
        coalescing.queues or None,
    )
    for (path, _), value in zip(_UNTOLD, values, strict=True):
        if value is not None:
            yield Missing(path, "device parts have no part for it")


# --- device parts as a state ---


def decode(data: bytes) -> Found:
    """The state that device parts tell, and what they do not tell.

    Raises:
        FormatError: no device parts, too many bytes, or none that has the guest's features.
    """
    try:
        return _decode(tuple(pull_parts(data)))
    except PartError as error:
        raise FormatError(str(error)) from None


def _decode(parts: tuple[DevicePart, ...]) -> Found:
    features = _pull_features(parts)
    told: dict[str, Any] = {}
    missing = [
        Missing(path, "device parts have no part for it, and the guest may have set it")
        for path, feature in _UNTOLD
        if feature in commanded(features)
    ]
    for command, part in _setting_parts(parts):
        setting, value = SETTINGS[command], _pull_setting(command, part)
        lacked = command.lacks(features)
        if lacked is None:
            told[setting.path] = value
        else:
            missing.append(_unpermitted(setting.path, command, lacked))
    missing.extend(_unknown(parts))
    notes = (*_sort_macs(told), *_prefer_rss(told))
    return found_of(
        {"features": features, **told}, missing=missing, notes=notes, about=_about(parts)
    )


def _pull_features(parts: Iterable[DevicePart]) -> FeatureSet:
    part = next((each for each in parts if each.type == PartType.DRV_FEATURES), None)
    if part is None:
        raise FormatError("expected a part DRV_FEATURES with what the guest negotiated, got none")
    size = FEATURES.width // 8
    if any(part.value[size:]):
        raise part.error(f"expected features 0 … {FEATURES.width - 1}, got others beside")
    return bits_of(int.from_bytes(part.value[:size], "little"))


def _setting_parts(parts: Iterable[DevicePart]) -> Iterator[tuple[type[Command], DevicePart]]:
    for part in parts:
        command = _setting_command(part)
        if command is not None:
            yield command, part


def _setting_command(part: DevicePart) -> type[Command] | None:
    """The command that a part stands for, where a state has what it sets."""
    command = COMMANDS.get(part.code) if part.type == PartType.CVQ_CFG_PART else None
    return command if command in SETTINGS else None


def _pull_setting(command: type[Command], part: DevicePart) -> Any:
    try:
        return SETTINGS[command].pull(part.value)
    except DecodeError as error:
        raise part.error(str(error).removeprefix(f"{command.NAME}: ")) from None


def _sort_macs(told: dict[str, Any]) -> tuple[str, ...]:
    """Brings the MAC table to the form that a state has; tells what stood elsewhere."""
    table: MacTableSet | None = told.get("mac_table")
    if table is None:
        return ()
    lists = mac_lists(table.unicast, table.multicast)
    told["mac_table"] = {"unicast": lists.unicast, "multicast": lists.multicast}
    return lists.notes


def _prefer_rss(told: dict[str, Any]) -> tuple[str, ...]:
    """Has RSS say how many queue pairs there are; tells where another part said otherwise."""
    pairs, rss = told.get("queue_pairs"), told.get("rss")
    if pairs is None or rss is None or pairs == rss["max_tx_queues"]:
        return ()
    told["queue_pairs"] = rss["max_tx_queues"]
    return (
        f"MQ_VQ_PAIRS_SET says {pairs} queue pairs and MQ_RSS_CONFIG {rss['max_tx_queues']}: RSS "
        "is on, so its command came later",
    )


def _unknown(parts: Iterable[DevicePart]) -> Iterator[Missing]:
    """The parts that are not known and that the device needs; at most so many and a last line."""
    unknown = [part for part in parts if not part.optional and not _is_known(part)]
    for part in unknown[:_MAX_NAMED]:
        yield Missing(
            part.name, f"{part.length} bytes at byte {part.at}: virtio 1.4 has no such part"
        )
    if len(unknown) > _MAX_NAMED:
        left_out = len(unknown) - _MAX_NAMED
        yield Missing("", f"{left_out} more parts that virtio 1.4 does not have are not shown")


def _is_known(part: DevicePart) -> bool:
    if part.type != PartType.CVQ_CFG_PART:
        return part.type in _PART_TYPES
    # ANNOUNCE_ACK is on the specification's list and sets nothing.
    return part.code == AnnounceAck.CODE or _setting_command(part) is not None


def _about(parts: Iterable[DevicePart]) -> Iterator[tuple[str, str]]:
    sizes, enabled = [], 0
    for part in parts:
        if part.type == PartType.DEVICE_STATUS:
            yield "device status", _STATUS.sentence(bits_of(part.value[0]))
        elif part.type == PartType.VQ_CFG:
            size, _, is_enabled = _VQ_CFG.unpack(part.value)
            sizes.append(size)
            enabled += bool(is_enabled)
    if sizes:
        yield "virtqueues", f"{enabled} of {len(sizes)} enabled, of at most {max(sizes)} entries"
