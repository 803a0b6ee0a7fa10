"""Values that a driver may send: of each command one, and the smallest and the largest."""

from collections.abc import Iterator, Sequence

from vdpad.conformance.answers import not_taken
from vdpad.conformance.bench import Bench, NotApplicable
from vdpad.conformance.case import Case, Level
from vdpad.conformance.cases.expecting import Make, takes
from vdpad.conformance.commands import MULTICAST, clause_of, id_of, key_of
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.virtio.commands import (
    COMMANDS,
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
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
)
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature
from vdpad.virtio.mac import format_mac

_MAX_U32 = 0xFFFFFFFF
# Past the tables of the devices that are known: QEMU's has 64 entries.
_MANY_ADDRESSES = 65
_OTHER_ADDRESS = bytes.fromhex("0200000000fe")


def _taken(command: type[Command]) -> Case:
    async def check(bench: Bench) -> Sequence[str]:
        assert bench.surveyed is not None
        answers = [each for each in bench.surveyed.answers if type(each.command) is command]
        found = [not_taken(each, bench.seconds) for each in answers]
        return [each for each in found if each is not None]

    # A test enables no data queue, which is what single queues' commands need.
    level = Level.SHOULD if command is CoalVqSet else Level.MUST
    return Case(
        f"{id_of(command)}.taken",
        f"{command.NAME} is taken, alone and in a batch",
        clause_of(command),
        level,
        check,
        frozenset({command.FEATURE}),
    )


def _value(
    command: type[Command], what: str, title: str, make: Make, level: Level = Level.MUST
) -> Case:
    return Case(
        f"{id_of(command)}.{what}",
        f"{command.NAME}: {title} is taken",
        clause_of(command),
        level,
        takes(make),
        frozenset({command.FEATURE}),
    )


def _many_addresses(_: DeviceUp) -> MacTableSet:
    addresses = (bytes([2, 0, 0, 0, *at.to_bytes(2, "big")]) for at in range(_MANY_ADDRESSES))
    return MacTableSet(tuple(addresses), (MULTICAST,))


def _smallest_rss(up: DeviceUp) -> MqRssConfig:
    return MqRssConfig(frozenset(), 0, (0,), 1, key_of(up.config))


def longest_table(config: NetConfig) -> int:
    """How many entries the longest indirection table has that a device takes."""
    return 1 << max(1, config.rss_max_indirection_table_length).bit_length() - 1


def longest_key(config: NetConfig) -> bytes:
    """As long a key as a device takes."""
    return bytes(at & 0xFF for at in range(config.rss_max_key_size))


def _largest_rss(up: DeviceUp) -> MqRssConfig:
    pairs = max(1, up.config.max_virtqueue_pairs)
    table = tuple(at % pairs for at in range(longest_table(up.config)))
    types = up.config.supported_hash_types
    return MqRssConfig(types, pairs - 1, table, pairs, longest_key(up.config))


async def _address_is_shown(bench: Bench) -> Sequence[str]:
    if await bench.ack(MacAddrSet(_OTHER_ADDRESS)) != 0:
        raise NotApplicable("the device does not take MAC_ADDR_SET")
    shown = (await bench.up.config_now()).mac
    if shown == _OTHER_ADDRESS:
        return ()
    return [f"the config space shows {format_mac(shown)}, set was {format_mac(_OTHER_ADDRESS)}"]


def _values() -> Iterator[Case]:
    yield _value(
        MacAddrSet, "smallest", "the smallest address", lambda _: MacAddrSet(bytes([0] * 5 + [1]))
    )
    yield _value(
        MacAddrSet,
        "largest",
        "the largest unicast address",
        lambda _: MacAddrSet(bytes([0xFE] + [0xFF] * 5)),
    )
    yield _value(MacTableSet, "smallest", "an empty table", lambda _: MacTableSet((), ()))
    yield _value(
        MacTableSet,
        "largest",
        f"{_MANY_ADDRESSES} addresses, for which the filter may widen,",
        _many_addresses,
        Level.SHOULD,
    )
    yield _value(
        VlanAdd, "zero", "id 0, which Linux always adds,", lambda _: VlanAdd(0), Level.SHOULD
    )
    yield _value(MqPairsSet, "smallest", "one pair", lambda _: MqPairsSet(1))
    yield _value(
        MqPairsSet,
        "largest",
        "max_virtqueue_pairs",
        lambda up: MqPairsSet(max(1, up.config.max_virtqueue_pairs)),
    )
    yield _value(MqRssConfig, "smallest", "one entry and no hash type", _smallest_rss)
    yield _value(MqRssConfig, "largest", "the longest table and key", _largest_rss)
    yield from _hash_values()
    yield _value(GuestOffloadsSet, "smallest", "none", lambda _: GuestOffloadsSet(frozenset()))
    yield from _coalescing_values()


def _hash_values() -> Iterator[Case]:
    yield _value(
        MqHashConfig,
        "smallest",
        "no hash type",
        lambda up: MqHashConfig(frozenset(), key_of(up.config)),
    )
    yield _value(
        MqHashConfig,
        "largest",
        "all types with the longest key",
        lambda up: MqHashConfig(up.config.supported_hash_types, longest_key(up.config)),
    )
    yield _value(HashTunnelSet, "smallest", "none", lambda _: HashTunnelSet(frozenset()))


def _coalescing_values() -> Iterator[Case]:
    for command in (CoalTxSet, CoalRxSet):
        yield _value(command, "smallest", "0 and 0", _coalescing(command, 0))
        # A device that cannot do so much should refuse it.
        yield _value(command, "largest", "2^32 - 1", _coalescing(command, _MAX_U32), Level.SHOULD)
    yield _value(CoalVqSet, "smallest", "0 and 0", lambda _: CoalVqSet(0, 0, 0), Level.SHOULD)
    yield _value(
        CoalVqSet,
        "largest",
        "2^32 - 1 for the last queue",
        lambda up: CoalVqSet(2 * max(1, up.config.max_virtqueue_pairs) - 1, _MAX_U32, _MAX_U32),
        Level.SHOULD,
    )


def _coalescing(command: type[CoalTxSet] | type[CoalRxSet], value: int) -> Make:
    return lambda _: command(value, value)


def _never_replayed(command: type[Command]) -> bool:
    return command in (AnnounceAck, CoalVqGet)


CASES: tuple[Case, ...] = (
    *(_taken(each) for each in COMMANDS.values() if not _never_replayed(each)),
    *_values(),
    Case(
        "mac-addr-set.shown",
        "MAC_ADDR_SET is seen in the config space before the command comes back",
        clause_of(MacAddrSet),
        Level.MUST,
        _address_is_shown,
        frozenset({Feature.CTRL_MAC_ADDR, Feature.MAC}),
    ),
)
