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
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.fitting import device_problems, too_large
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
from vdpad.virtio.features import Feature, FeatureSet

# The modes that close the filter when they are on; the others open it.
_CLOSING = (RxNoMulti, RxNoUni, RxNoBcast)


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
    problems = list(device_problems(state, capabilities))
    if problems:
        return Incompatible(tuple(problems))
    rx, widened = _widen(state, capabilities.features)
    commands = tuple(_commands(state, rx, capabilities.features))
    problems = list(too_large(commands, capabilities))
    return Incompatible(tuple(problems)) if problems else Plan(commands, widened)


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
