"""The plan: which commands bring a device from reset to a state, or every reason why it can't.

Pure. The order is the mechanism:

1. MAC_ADDR_SET: mlx5 keys its VLAN rules on the address.
2. MQ_VQ_PAIRS_SET: what follows names queues. Any class 4 command switches RSS off.
3. MQ_RSS_CONFIG or MQ_HASH_CONFIG: the last class 4 command wins.
4. HASH_TUNNEL_SET: which headers the hash of 3 is of.
5. GUEST_OFFLOADS_SET.
6. Coalescing: a direction overwrites its queues, so queues come after.
7. VLANs, then the MAC table.
8. Receive modes: those that open the filter, then those that close it, promiscuous mode last, so
   that nothing is shut out by a filter whose tables are not full yet.

Values are sent even where they equal a reset default, since devices' defaults differ.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.state.model import CoalescingValues, NetState, RxModes
from vdpad.state.overflow import opened_for_overflow
from vdpad.state.problems import Problem
from vdpad.virtio.commands import (
    RX_MODES,
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
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    VlanAdd,
)
from vdpad.virtio.config import HASH_TYPES, TUNNEL_TYPES, NetConfig
from vdpad.virtio.features import (
    FEATURES,
    PROVIDED_BY_VMM,
    TRANSPORT,
    Feature,
    FeatureSet,
)

# The modes that close the filter when they are on; the others open it.
_CLOSING = (RxNoMulti, RxNoUni, RxNoBcast)

# The parts whose command has no fixed size, for telling which one is too large.
_SIZED_PARTS = {MacTableSet: "mac_table", MqRssConfig: "rss", MqHashConfig: "hash_report"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination device takes."""

    features: FeatureSet
    """Those negotiated with it."""
    largest_command: int
    """Bytes of one command that the queue's buffers take."""
    max_queue_pairs: int = 1
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: frozenset[int] = frozenset()
    supported_tunnel_types: frozenset[int] = frozenset()

    @classmethod
    def of(cls, features: FeatureSet, config: NetConfig, largest_command: int) -> "Capabilities":
        """Those of a device with this config space."""
        multiqueue = features & {Feature.MQ, Feature.RSS}
        return cls(
            features=features,
            largest_command=largest_command,
            max_queue_pairs=config.max_virtqueue_pairs if multiqueue else 1,
            rss_max_key_size=config.rss_max_key_size,
            rss_max_indirection_table_length=config.rss_max_indirection_table_length,
            supported_hash_types=config.supported_hash_types,
            supported_tunnel_types=config.supported_tunnel_types,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered commands; none that the device's features do not permit."""

    commands: tuple[Command, ...]
    widened: tuple[str, ...]
    """Where the filter will let through more than on the source, as sentences."""

    def counts(self) -> list[tuple[str, int]]:
        """The commands' names in order, each run of one name with its length."""
        runs: list[tuple[str, int]] = []
        for command in self.commands:
            if runs and runs[-1][0] == command.NAME:
                runs[-1] = (command.NAME, runs[-1][1] + 1)
            else:
                runs.append((command.NAME, 1))
        return runs


@dataclass(frozen=True, slots=True)
class Incompatible:
    """All the reasons why a device cannot be brought to a state; at least one."""

    problems: tuple[Problem, ...]


class DoesNotFit(VdpadError):
    """A state that a device cannot take."""

    def __init__(self, why: str, problems: Iterable[Problem]) -> None:
        super().__init__(f"the device cannot take this state: {why}")
        self.problems = tuple(problems)


def plan(state: NetState, capabilities: Capabilities) -> Plan | Incompatible:
    """Plans the restore of a state on a device with these capabilities."""
    problems = list(_problems(state, capabilities))
    if problems:
        return Incompatible(tuple(problems))
    rx, widened = _widen(state, capabilities.features)
    commands = tuple(_commands(state, rx, capabilities.features))
    too_large = tuple(_too_large(commands, capabilities))
    return Incompatible(too_large) if too_large else Plan(commands, widened)


# --- what the device cannot take ---


def _problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    yield from _feature_problems(state, device.features)
    yield from _queue_problems(state, device)
    yield from _rss_problems(state, device)
    yield from _hash_report_problems(state, device)
    yield from _hash_tunnel_problems(state, device)
    yield from _coalescing_problems(state, device)


def missing_features(guest: FeatureSet, offered: FeatureSet) -> Iterator[Problem]:
    """What a guest negotiated that a device does not have; at most one problem."""
    missing = guest - offered - PROVIDED_BY_VMM - set(TRANSPORT)
    if missing:
        names = FEATURES.sentence(missing)
        yield Problem(
            "features", "missing-feature", f"the guest negotiated {names}; the device has not"
        )


def _feature_problems(state: NetState, offered: FeatureSet) -> Iterator[Problem]:
    yield from missing_features(state.features, offered)
    for path, wanted in state.needs():
        if not offered.intersection(wanted):
            either = " or ".join(each.name for each in wanted)
            dotted = ".".join(map(str, path))
            yield Problem(dotted, "missing-feature", f"needs {either}; the device has not")


def _queue_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    most = device.max_queue_pairs
    if state.queue_pairs is not None and state.queue_pairs > most:
        yield _too_many("queue_pairs", "queue pairs", state.queue_pairs, most)
    if state.rss is not None and state.rss.max_tx_queues > most:
        yield _too_many("rss.max_tx_queues", "transmit queues", state.rss.max_tx_queues, most)
    for path, code, message in state.rss_queue_faults(most):
        yield Problem(".".join(map(str, path)), code, f"{message}, which are all the device has")


def _too_many(path: str, what: str, wanted: int, most: int) -> Problem:
    return Problem(path, "out-of-range", f"{wanted} {what}; the device takes {most}")


def _rss_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    if state.rss is None or Feature.RSS not in device.features:
        return
    length = len(state.rss.indirection_table)
    most = device.rss_max_indirection_table_length
    if length > most:
        yield Problem(
            "rss.indirection_table", "too-long", f"{length} entries; the device takes {most}"
        )
    yield from _hash_problems("rss", state.rss.hash_types, state.rss.key, device)


def _hash_report_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    report = state.hash_report
    if report is not None and Feature.HASH_REPORT in device.features:
        yield from _hash_problems("hash_report", report.hash_types, report.key, device)


def _hash_tunnel_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    if state.hash_tunnel is None or Feature.HASH_TUNNEL not in device.features:
        return
    unsupported = state.hash_tunnel.types - device.supported_tunnel_types
    if unsupported:
        names = TUNNEL_TYPES.sentence(unsupported)
        yield Problem(
            "hash_tunnel.types",
            "unsupported",
            f"{names}; the device does not hash over inner headers of these",
        )


def _hash_problems(
    path: str, hash_types: frozenset[int], key: bytes, device: Capabilities
) -> Iterator[Problem]:
    unsupported = hash_types - device.supported_hash_types
    if unsupported:
        names = HASH_TYPES.sentence(unsupported)
        yield Problem(
            f"{path}.hash_types", "unsupported", f"{names}; the device does not hash over these"
        )
    if len(key) > device.rss_max_key_size:
        yield Problem(
            f"{path}.key",
            "too-long",
            f"{len(key)} bytes; the device takes {device.rss_max_key_size}",
        )


def _coalescing_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    """Where a virtqueue is named that the device does not have.

    Not only those in use: Linux sets the values of all its queues, however many of them it uses.
    """
    if state.coalescing is None or not state.coalescing.queues:
        return
    queues = 2 * device.max_queue_pairs
    outside = sorted(int(index) for index in state.coalescing.queues if int(index) >= queues)
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        yield Problem(
            f"coalescing.queues.{outside[0]}",
            "out-of-range",
            f"virtqueue {outside[0]}{more}; the device has 0 … {queues - 1} for packets",
        )


def _too_large(commands: tuple[Command, ...], device: Capabilities) -> Iterator[Problem]:
    for command in commands:
        path = _SIZED_PARTS.get(type(command))
        if path is None:
            continue
        size = len(command.encode())
        if size > device.largest_command:
            yield Problem(
                path,
                "too-large",
                f"{command.NAME} is {size} bytes; the queue's buffers take "
                f"{device.largest_command}",
            )


# --- what is sent ---


def _widen(state: NetState, features: FeatureSet) -> tuple[RxModes, tuple[str, ...]]:
    """The receive modes, opened where a table that overflowed does not tell all addresses."""
    rx = state.rx or RxModes()
    opened = {
        half: mode
        for half, mode in opened_for_overflow(state, features).items()
        if not getattr(rx, mode)
    }
    widened = tuple(
        f"mac_table.{half} overflowed on the source: {mode} is switched on"
        for half, mode in opened.items()
    )
    return rx.model_copy(update=dict.fromkeys(opened.values(), True)), widened


def _commands(state: NetState, rx: RxModes, features: FeatureSet) -> Iterator[Command]:
    if state.mac is not None:
        yield MacAddrSet(state.mac)
    if state.queue_pairs is not None and Feature.MQ in features:
        yield MqPairsSet(state.queue_pairs)
    yield from _hash_commands(state)
    if state.hash_tunnel is not None:
        yield HashTunnelSet(state.hash_tunnel.types)
    if state.guest_offloads is not None:
        yield GuestOffloadsSet(state.guest_offloads)
    yield from _coalescing_commands(state)
    for vid in state.vlans or ():
        yield VlanAdd(vid)
    if state.mac_table is not None:
        yield MacTableSet(state.mac_table.unicast, state.mac_table.multicast)
    yield from _rx_commands(rx, features)


def _hash_commands(state: NetState) -> Iterator[Command]:
    if state.rss is not None:
        yield MqRssConfig(
            hash_types=state.rss.hash_types,
            unclassified_queue=state.rss.unclassified_queue,
            indirection_table=state.rss.indirection_table,
            max_tx_queues=state.rss.max_tx_queues,
            key=state.rss.key,
        )
    if state.hash_report is not None:
        yield MqHashConfig(state.hash_report.hash_types, state.hash_report.key)


def _coalescing_commands(state: NetState) -> Iterator[Command]:
    if state.coalescing is None:
        return
    for command, values in (
        (CoalTxSet, state.coalescing.tx),
        (CoalRxSet, state.coalescing.rx),
    ):
        if values is not None:
            yield command(values.max_packets, values.max_usecs)
    queues = state.coalescing.queues or {}
    for index in sorted(map(int, queues)):
        values_of_queue: CoalescingValues = queues[str(index)]
        yield CoalVqSet(index, values_of_queue.max_packets, values_of_queue.max_usecs)


def _rx_commands(rx: RxModes, features: FeatureSet) -> Iterator[Command]:
    opening: list[Command] = []
    closing: list[Command] = []
    for mode in reversed(RX_MODES):
        on = getattr(rx, mode.MODE)
        if on is not None and mode.FEATURE in features:
            opens = on is not (mode in _CLOSING)
            (opening if opens else closing).append(mode(on))
    yield from opening
    yield from closing
