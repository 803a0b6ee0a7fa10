"""The recorder against the plan, which goes the other way, and against our own device."""

import copy
import json
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import COMMANDS
from tests.support.states import MACS, feature_supersets, net_states
from vdpad.queues.software.device import ALL_FEATURES
from vdpad.queues.software.net import NetDevice
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.state.model import NetState
from vdpad.state.recorder import Recorder
from vdpad.virtio.commands import (
    ACK_OK,
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
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GuestOffload, HashType, NetConfig, TunnelType
from vdpad.virtio.features import unmet_requirements

_QUEUES = st.integers(0, 3)
_SMALL = st.integers(0, 3)
_HASH_TYPES = st.frozensets(st.sampled_from([HashType.IPv4, HashType.TCPv4]))
_KEYS = st.sampled_from([b"", b"\x6d", bytes(40)])
_GROUPS = MACS.map(lambda mac: bytes([mac[0] | 1]) + mac[1:])
_TABLES = st.sampled_from([1, 2, 4]).flatmap(
    lambda length: st.lists(_QUEUES, min_size=length, max_size=length).map(tuple)
)

LIKELY: st.SearchStrategy[Command] = st.one_of(
    st.builds(RxPromisc, on=st.booleans()),
    st.builds(RxAllMulti, on=st.booleans()),
    st.builds(RxNoUni, on=st.booleans()),
    st.builds(
        MacTableSet,
        unicast=st.lists(MACS, max_size=3).map(tuple),
        multicast=st.lists(_GROUPS, max_size=3).map(tuple),
    ),
    st.builds(MacAddrSet, mac=MACS),
    st.builds(VlanAdd, vid=_SMALL),
    st.builds(VlanDel, vid=_SMALL),
    st.builds(MqPairsSet, pairs=st.integers(1, 4)),
    st.builds(
        MqRssConfig,
        hash_types=_HASH_TYPES,
        unclassified_queue=_QUEUES,
        indirection_table=_TABLES,
        max_tx_queues=st.integers(1, 4),
        key=_KEYS,
    ),
    st.builds(MqHashConfig, hash_types=_HASH_TYPES, key=_KEYS),
    st.builds(GuestOffloadsSet, offloads=st.frozensets(st.sampled_from(GuestOffload))),
    st.builds(CoalTxSet, max_packets=_SMALL, max_usecs=_SMALL),
    st.builds(CoalRxSet, max_packets=_SMALL, max_usecs=_SMALL),
    st.builds(CoalVqSet, queue=st.integers(0, 7), max_packets=_SMALL, max_usecs=_SMALL),
    st.builds(HashTunnelSet, tunnel_types=st.frozensets(st.sampled_from(TunnelType))),
)
"""What our device mostly takes, with values that meet each other."""
MANY = st.lists(LIKELY, min_size=20, max_size=60)
REFUSALS = st.tuples(COMMANDS.map(lambda command: command.encode()), st.integers(1, 255))


def _shown(state: NetState) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(state.model_dump_json(exclude_none=True))
    return shown


def _as_commands_tell(state: NetState) -> dict[str, Any]:
    """A state as JSON, as far as commands can tell it."""
    shown = _shown(state)
    # No command tells an overflow.
    if "mac_table" in shown:
        shown["mac_table"] |= {"unicast_overflow": False, "multicast_overflow": False}
    # MQ_RSS_CONFIG always tells the pairs, and without MQ and it, nothing does.
    if "rss" in shown:
        shown["queue_pairs"] = shown["rss"]["max_tx_queues"]
    elif "MQ" not in shown["features"]:
        shown.pop("queue_pairs", None)
    # Without its feature a mode is off, and is not sent.
    if "rx" in shown and "CTRL_RX_EXTRA" not in shown["features"]:
        for mode in ("alluni", "nomulti", "nouni", "nobcast"):
            shown["rx"].pop(mode, None)
    # A table or a set of parts that is empty takes no command.
    if not shown.get("coalescing", {}).get("queues", True):
        del shown["coalescing"]["queues"]
    return {
        name: part
        for name, part in shown.items()
        if part or name not in ("rx", "vlans", "coalescing")
    }


def _commands(state: NetState) -> tuple[Command, ...]:
    """Those that bring a device that takes everything to this state."""
    device = Capabilities(
        features=state.features,
        largest_command=1 << 20,
        max_queue_pairs=1 << 15,
        rss_max_key_size=255,
        rss_max_indirection_table_length=1 << 16,
        supported_hash_types=frozenset(range(32)),
        supported_tunnel_types=frozenset(range(32)),
    )
    planned = plan(state, device)
    assert isinstance(planned, Plan), planned
    return planned.commands


def _without_overflow(state: NetState) -> NetState:
    """The same, with a plan that does not widen the filter."""
    if state.mac_table is None:
        return state
    flags = {"unicast_overflow": False, "multicast_overflow": False}
    return state.model_copy(update={"mac_table": state.mac_table.model_copy(update=flags)})


def _fold(recorder: Recorder, commands: Iterable[Command]) -> Recorder:
    for command in commands:
        recorder.fold(command.encode(), ACK_OK)
    return recorder


# --- against the plan ---


@given(net_states().map(_without_overflow), st.data())
def test_a_planned_state_comes_back_whatever_is_refused_between(
    state: NetState, data: st.DataObject
) -> None:
    recorder = Recorder(state.features)
    commands = _commands(state)
    refused_before = data.draw(st.dictionaries(st.integers(0, len(commands)), REFUSALS, max_size=4))
    for at, command in enumerate(commands):
        if at in refused_before:
            recorder.fold(*refused_before[at])
        recorder.fold(command.encode(), ACK_OK)
    found = recorder.found()
    assert found.state is not None, found.problems
    assert (found.missing, found.notes) == ((), unmet_requirements(state.features))
    assert _shown(found.state) == _as_commands_tell(state)


@given(net_states())
def test_a_recorder_of_a_state_has_that_state(state: NetState) -> None:
    found = Recorder.of(state).found()
    assert found.state is not None, found.problems
    assert (found.missing, found.notes) == ((), unmet_requirements(state.features))
    assert found.state.mac_table == state.mac_table
    assert _as_commands_tell(found.state) == _as_commands_tell(state)


@given(net_states().map(_without_overflow), MANY)
def test_a_recorder_of_a_state_goes_on_as_if_commands_had_told_it(
    state: NetState, commands: list[Command]
) -> None:
    restored = _fold(Recorder.of(state), commands).found()
    told = _fold(_fold(Recorder(state.features), _commands(state)), commands).found()
    assert (restored.missing, restored.notes) == (told.missing, told.notes)
    if restored.state is None or told.state is None:
        assert restored.problems == told.problems
    else:
        assert _as_commands_tell(restored.state) == _as_commands_tell(told.state)


# --- against our own device ---

CONFIG = NetConfig(
    mac=bytes.fromhex("525400000001"),
    max_virtqueue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset({HashType.IPv4, HashType.TCPv4}),
    supported_tunnel_types=frozenset({TunnelType.VXLAN, TunnelType.IPIP}),
)


def _after(device: NetDevice, readable: bytes) -> tuple[NetDevice, int]:
    """A device that a refused command leaves as it was, unlike ours: that drops RSS."""
    tried = copy.deepcopy(device)
    ack = tried.command(readable)
    return (tried if ack == ACK_OK else device), ack


def _over_reset(told: dict[str, Any]) -> dict[str, Any]:
    """What a device holds that has these settings and in all else its reset values."""
    held = NetDevice(ALL_FEATURES, CONFIG).settings()
    held["rx"] |= told.get("rx", {})
    held |= {name: part for name, part in told.items() if name != "rx"}
    if "rss" in told and "queue_pairs" not in told:
        del held["queue_pairs"]  # both leave it out where RSS spreads over more than the pairs
    return held


@given(st.lists(LIKELY | st.none(), min_size=20, max_size=60))
def test_the_recorder_knows_what_our_device_holds(commands: Sequence[Command | None]) -> None:
    device, recorder = NetDevice(ALL_FEATURES, CONFIG), Recorder(ALL_FEATURES)
    for command in commands:
        if command is None:
            device.reset()
            recorder.reset(ALL_FEATURES)
            continue
        device, ack = _after(device, command.encode())
        recorder.fold(command.encode(), ack)
    found = recorder.found()
    assert found.state is not None, found.problems
    assert found.missing == ()
    assert _canonical(_over_reset(_shown(found.state))) == _canonical(device.settings())


def _canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """The same with VLANs as ranges."""
    return _shown(NetState.model_validate_json(json.dumps(settings)))


# --- hostile guests, on devices that acknowledge anything ---

ANYTHING = st.one_of(
    st.binary(max_size=40),
    COMMANDS.map(lambda command: command.encode()),
    st.builds(
        lambda command, cut, more: command.encode()[:cut] + more,
        COMMANDS,
        st.integers(0, 40),
        st.binary(max_size=2),
    ),
)


@given(feature_supersets(frozenset()) | st.just(ALL_FEATURES), st.lists(ANYTHING, max_size=40))
def test_whatever_is_acknowledged_makes_a_state_or_problems(
    features: frozenset[int], told: list[bytes]
) -> None:
    recorder = Recorder(features)
    for readable in told:
        recorder.fold(readable, ACK_OK)
    found = recorder.found()
    assert (found.state is None) == bool(found.problems)
    assert recorder.found() == found
    assert len({each.part for each in found.missing}) == len(found.missing)
    if found.state is not None:
        text = found.state.model_dump_json(exclude_none=True)
        assert NetState.model_validate_json(text) == found.state


@given(st.lists(ANYTHING, max_size=20))
def test_nonsense_that_is_overwritten_leaves_a_valid_state(
    told: list[bytes],
) -> None:
    recorder = Recorder(ALL_FEATURES)
    for readable in told:
        recorder.fold(readable, ACK_OK)
    _fold(recorder, (MacAddrSet(bytes.fromhex("525400000001")), MqPairsSet(1)))
    found = recorder.found()
    assert found.state is not None, found.problems


@given(first=MANY, second=MANY)
def test_a_recorder_goes_on_from_what_another_has_found(
    first: list[Command], second: list[Command]
) -> None:
    one = Recorder(ALL_FEATURES)
    _fold(one, first)
    found = one.found()
    if found.state is None:
        return
    other = Recorder.of(found.state, found.missing)
    for recorder in (one, other):
        _fold(recorder, second)
    assert _found(one) == _found(other)


def _found(recorder: Recorder) -> tuple[object, ...]:
    """What a recorder has found; a table without VLANs is as good as none."""
    found = recorder.found()
    state = None if found.state is None else {**dict(found.state), "vlans": found.state.vlans or ()}
    return state, found.missing, found.problems
