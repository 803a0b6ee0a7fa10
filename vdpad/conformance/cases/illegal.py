"""Values that no driver may send, and commands that no driver writes so.

What a device does with them the specification leaves open but for single queues' coalescing; a wise
device refuses them, and each is sent alone to a fresh one.
"""

from collections.abc import Iterator, Sequence

from vdpad.conformance.answers import named
from vdpad.conformance.bench import Bench, NotApplicable
from vdpad.conformance.case import Case, Level
from vdpad.conformance.cases.expecting import Make, refuses
from vdpad.conformance.cases.legal import longest_key, longest_table
from vdpad.conformance.commands import MULTICAST, UNICAST, candidates, clause_of, id_of, key_of
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.virtio.commands import (
    ACK_OK,
    RX_MODES,
    CoalVqGet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import MAX_QUEUE_PAIRS, GuestOffload, cvq_index, offloads_of
from vdpad.virtio.features import Feature
from vdpad.virtio.raw_command import RawCommand

_MAX_U16 = 0xFFFF
_LONGEST_KEY = 255
_LONGEST_TABLE = 1 << 16
_NO_VLAN = 4096
_NO_HASH_TYPE = 31
_NO_TUNNEL_TYPE = 31
_NO_OFFLOAD = 63


def _illegal(
    command: type[Command], what: str, title: str, make: Make, level: Level = Level.SHOULD
) -> Case:
    return Case(
        f"{id_of(command)}.{what}",
        f"{command.NAME}: {title} is refused",
        clause_of(command),
        level,
        refuses(make),
        frozenset({command.FEATURE}),
    )


def _filter_values() -> Iterator[Case]:
    for mode in RX_MODES:
        yield _illegal(mode, "illegal", "2, neither off nor on,", _raw(mode, b"\2"))
    yield _illegal(MacAddrSet, "zero", "the address 0", lambda _: MacAddrSet(bytes(6)))
    yield _illegal(MacAddrSet, "multicast", "a multicast address", lambda _: MacAddrSet(MULTICAST))
    yield _illegal(
        MacTableSet,
        "multicast-as-unicast",
        "a multicast address in the first half",
        lambda _: MacTableSet((MULTICAST,), ()),
    )
    yield _illegal(
        MacTableSet,
        "unicast-as-multicast",
        "a unicast address in the second half",
        lambda _: MacTableSet((), (UNICAST,)),
    )
    yield _illegal(
        MacTableSet,
        "count",
        "a count of more addresses than there are",
        _raw(MacTableSet, b"\2\0\0\0" + UNICAST + b"\0\0\0\0"),
    )
    for command in (VlanAdd, VlanDel):
        yield _illegal(command, "illegal", "id 4096", _vlan(command, _NO_VLAN))
        yield _illegal(command, "largest-illegal", "id 65535", _vlan(command, _MAX_U16))


def _raw(command: type[Command], data: bytes) -> Make:
    return lambda _: RawCommand(command.CODE, data)


def _vlan(command: type[VlanAdd] | type[VlanDel], vid: int) -> Make:
    return lambda _: command(vid)


def _queue_values() -> Iterator[Case]:
    yield _illegal(MqPairsSet, "zero", "no pair", lambda _: MqPairsSet(0))
    yield _illegal(MqPairsSet, "too-many", "a pair more than there are", _a_pair_too_many)
    yield _illegal(
        MqPairsSet, "past-all", "0x8001 pairs", lambda _: MqPairsSet(MAX_QUEUE_PAIRS + 1)
    )
    yield _illegal(MqRssConfig, "odd-table", "a table of 3 entries", _rss(table=3))
    yield _illegal(MqRssConfig, "long-table", "a table too long", _rss_with_long_table)
    yield _illegal(MqRssConfig, "entry", "an entry that names no queue", _rss(entry=_MAX_U16 >> 1))
    yield _illegal(
        MqRssConfig,
        "unclassified",
        "an unclassified_queue that is none",
        _rss(unclassified=_MAX_U16 >> 1),
    )
    yield _illegal(MqRssConfig, "no-transmit", "no transmit queue", _rss(transmit=0))
    yield _illegal(
        MqRssConfig, "too-many-transmit", "65535 transmit queues", _rss(transmit=_MAX_U16)
    )
    yield _illegal(
        MqRssConfig, "hash-type", "a hash type that does not exist", _rss(type_=_NO_HASH_TYPE)
    )
    yield _illegal(MqRssConfig, "long-key", "a key too long", _rss_with_long_key)
    yield _illegal(
        MqHashConfig,
        "hash-type",
        "a hash type that does not exist",
        lambda up: MqHashConfig(frozenset({_NO_HASH_TYPE}), key_of(up.config)),
    )
    yield _illegal(MqHashConfig, "long-key", "a key too long", _hash_with_long_key)
    yield _illegal(
        HashTunnelSet,
        "type",
        "a tunnel type that does not exist",
        lambda _: HashTunnelSet(frozenset({_NO_TUNNEL_TYPE})),
    )


def _a_pair_too_many(up: DeviceUp) -> MqPairsSet:
    return MqPairsSet(up.config.max_virtqueue_pairs + 1)


def _rss(
    table: int = 1, entry: int = 0, unclassified: int = 0, transmit: int = 1, type_: int = -1
) -> Make:
    """The smallest RSS, but for what is given."""
    types = frozenset({type_} - {-1})
    return lambda up: MqRssConfig(
        types, unclassified, (entry,) * table, transmit, key_of(up.config)
    )


def _rss_with_long_table(up: DeviceUp) -> MqRssConfig:
    length = 2 * longest_table(up.config)
    if length > _LONGEST_TABLE:
        raise NotApplicable("the device takes the longest table that there is")
    return MqRssConfig(frozenset(), 0, (0,) * length, 1, key_of(up.config))


def _too_long_key(up: DeviceUp) -> bytes:
    key = longest_key(up.config) + b"\0"
    if len(key) > _LONGEST_KEY:
        raise NotApplicable("the device takes the longest key that there is")
    return key


def _rss_with_long_key(up: DeviceUp) -> MqRssConfig:
    return MqRssConfig(frozenset(), 0, (0,), 1, _too_long_key(up))


def _hash_with_long_key(up: DeviceUp) -> MqHashConfig:
    return MqHashConfig(frozenset(), _too_long_key(up))


def _other_values() -> Iterator[Case]:
    yield _illegal(
        GuestOffloadsSet,
        "not-negotiated",
        "an offload that was not negotiated",
        lambda up: GuestOffloadsSet(frozenset({_offload_too_many(up)})),
    )
    for command in (CoalVqSet, CoalVqGet):
        yield _illegal(
            command,
            "control-queue",
            "the control queue, which is no transmit or receive queue,",
            _coalescing_of_control_queue(command),
            Level.MUST,
        )
        yield _illegal(
            command, "no-queue", "queue 65535", _coalescing_of_no_queue(command), Level.MUST
        )


def _offload_too_many(up: DeviceUp) -> int:
    return min(frozenset(GuestOffload) - offloads_of(up.features), default=_NO_OFFLOAD)


def _coalescing_of_control_queue(command: type[CoalVqSet] | type[CoalVqGet]) -> Make:
    return lambda up: command(cvq_index(up.features, up.config.max_virtqueue_pairs), 1, 1)


def _coalescing_of_no_queue(command: type[CoalVqSet] | type[CoalVqGet]) -> Make:
    return lambda _: command(_MAX_U16, 1, 1)


async def _not_negotiated(bench: Bench) -> Sequence[str]:
    features, config = bench.up.features, bench.up.config
    kinds = {type(each): each for each in candidates(frozenset(Feature), config)}
    lacking = [each for each in kinds.values() if each.FEATURE not in features]
    if not lacking:
        raise NotApplicable("all that commands need was negotiated")
    return [
        f"{named(each)}: acknowledged without {each.FEATURE.name}"
        for each in lacking
        if await bench.ack(each) == ACK_OK
    ]


CASES: tuple[Case, ...] = (
    *_filter_values(),
    *_queue_values(),
    *_other_values(),
    Case(
        "not-negotiated",
        "commands whose feature was not negotiated are refused",
        "5.1.6.5",
        Level.SHOULD,
        _not_negotiated,
    ),
)
