"""The commands that a test sends: one of each kind that carries state, and what each is called."""

from collections.abc import Iterator, Sequence

from vdpad.virtio.commands import (
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import MIN_RSS_KEY_SIZE, NetConfig, offloads_of
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.raw_command import AnyCommand, RawCommand

UNICAST = bytes.fromhex("020000000001")
"""A local address, for a device that has none."""
MULTICAST = bytes.fromhex("01005e000001")

_MIDDLE_VID = 2048

NO_SUCH_COMMAND = 255
NO_SUCH_CLASS = RawCommand((255, NO_SUCH_COMMAND), b"")
"""A command that no device knows."""

# The clauses' titles, by class; those of class 4 by command too.
_TITLES = {
    0: "Packet Receive Filtering",
    1: "Setting MAC Address Filtering",
    2: "VLAN Filtering",
    3: "Gratuitous Packet Sending",
    5: "Offloads State Configuration",
    6: "Notifications Coalescing",
    7: "Inner Header Hash",
}
_TITLES_OF_MQ = {
    MqPairsSet.CODE: "Automatic receive steering in multiqueue mode",
    MqRssConfig.CODE: "Receive-side scaling (RSS)",
    MqHashConfig.CODE: "Hash calculation",
}


def clause_of(command: type[Command]) -> str:
    """The clause of virtio 1.4 that a command is from."""
    title = _TITLES_OF_MQ.get(command.CODE) or _TITLES[command.CODE[0]]
    return f'5.1.6.5 "{title}"'


def id_of(command: type[Command]) -> str:
    """What cases about a command begin with: "vlan-add"."""
    return command.NAME.lower().replace("_", "-")


def key_of(config: NetConfig) -> bytes:
    """A hash key that a device with this config space takes."""
    return bytes(range(min(MIN_RSS_KEY_SIZE, config.rss_max_key_size)))


def address_of(config: NetConfig) -> bytes:
    """The device's own address, or a local one where it has none."""
    return config.mac if any(config.mac) else UNICAST


def candidates(features: FeatureSet, config: NetConfig) -> list[Command]:
    """A command of each kind that carries state and that the features allow, in a plan's order."""
    return [each for each in _all_kinds(features, config) if each.FEATURE in features]


def _all_kinds(features: FeatureSet, config: NetConfig) -> Iterator[Command]:
    pairs = max(1, config.max_virtqueue_pairs)
    key = key_of(config)
    yield MacAddrSet(address_of(config))
    yield MqPairsSet(pairs)
    yield MqRssConfig(config.supported_hash_types, 0, (0,), pairs, key)
    yield MqHashConfig(config.supported_hash_types, key)
    yield HashTunnelSet(config.supported_tunnel_types)
    yield GuestOffloadsSet(offloads_of(features))
    yield CoalTxSet(64, 100)
    yield CoalRxSet(32, 50)
    yield CoalVqSet(0, 16, 25)
    yield VlanAdd(1)
    yield VlanAdd(4094)
    yield VlanDel(1)
    yield MacTableSet((UNICAST,), (MULTICAST,))
    for mode in (RxAllMulti, RxAllUni, RxNoMulti, RxNoUni, RxNoBcast, RxPromisc):
        yield mode(on=True)
        yield mode(on=False)


def alike(command: Command, count: int) -> list[Command]:
    """So many of its like: the same once more, but for VLANs, which are others each time."""
    if not isinstance(command, VlanAdd | VlanDel):
        return [command] * count
    step = 1 if command.vid < _MIDDLE_VID else -1
    return [type(command)(command.vid + step * at) for at in range(count)]


def undone(commands: Sequence[Command]) -> list[Command]:
    """What lets the same commands be sent once more: some devices refuse an id that they have."""
    added = {each.vid for each in commands if isinstance(each, VlanAdd)}
    deleted = {each.vid for each in commands if isinstance(each, VlanDel)}
    return [VlanDel(vid) for vid in sorted(added - deleted)]


def filler(features: FeatureSet, config: NetConfig) -> AnyCommand:
    """A command that may be sent as often as one likes, and is answered alike each time.

    One that does not exist, where the features allow no other.
    """
    kinds = candidates(features, config)
    return next((each for each in kinds if not isinstance(each, VlanAdd | VlanDel)), NO_SUCH_CLASS)
