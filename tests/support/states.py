"""States: one with every part as the API's page shows it, and a strategy for all valid ones."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from vdpad.state.model import (
    Coalescing,
    CoalescingValues,
    HashReport,
    HashTunnel,
    MacTable,
    NetState,
    Rss,
    RxModes,
)
from vdpad.virtio.config import GuestOffload, HashType, TunnelType
from vdpad.virtio.features import Feature

KEY_HEX = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"

# Every part but hash_report, which excludes rss.
SAMPLE: Mapping[str, Any] = {
    "version": 1,
    "features": [
        "GUEST_CSUM",
        "CTRL_GUEST_OFFLOADS",
        "MAC",
        "GUEST_TSO4",
        "CTRL_VQ",
        "CTRL_RX",
        "CTRL_VLAN",
        "CTRL_RX_EXTRA",
        "MQ",
        "CTRL_MAC_ADDR",
        "VQ_NOTF_COAL",
        "NOTF_COAL",
        "HASH_TUNNEL",
        "RSS",
    ],
    "mac": "52:54:00:12:34:56",
    "rx": {
        "promisc": False,
        "allmulti": False,
        "alluni": False,
        "nomulti": False,
        "nouni": False,
        "nobcast": False,
    },
    "mac_table": {
        "unicast": ["52:54:00:00:00:07"],
        "multicast": ["01:00:5e:00:00:01"],
        "unicast_overflow": False,
        "multicast_overflow": False,
    },
    "vlans": [1, 5, [100, 200]],
    "queue_pairs": 4,
    "rss": {
        "hash_types": ["IPv4", "TCPv4"],
        "indirection_table": [0, 1, 2, 3],
        "unclassified_queue": 0,
        "max_tx_queues": 4,
        "key": KEY_HEX,
    },
    "hash_tunnel": {"types": ["VXLAN", "GENEVE"]},
    "guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"],
    "coalescing": {
        "rx": {"max_packets": 32, "max_usecs": 50},
        "tx": {"max_packets": 64, "max_usecs": 100},
        "queues": {"0": {"max_packets": 16, "max_usecs": 25}},
    },
}


def net_state(**changes: Any) -> NetState:
    """The sample with other parts; one that is Ellipsis is left out."""
    merged = {key: value for key, value in {**SAMPLE, **changes}.items() if value is not ...}
    return NetState.model_validate_json(json.dumps(merged))


def bare_state(features: Iterable[str], **parts: Any) -> NetState:
    """A state of these features and these parts alone."""
    raw = {"version": 1, "features": list(features), **parts}
    return NetState.model_validate_json(json.dumps(raw))


# --- strategies ---

MAX_PAIRS = 8
"""So many queue pairs a generated state may ask for at most."""
MAX_TABLE_POWER = 7
"""Its indirection table has at most 2 to this power entries."""
MAX_KEY = 40

_U32 = st.integers(0, 0xFFFFFFFF)
_VALUES = st.builds(CoalescingValues, max_packets=_U32, max_usecs=_U32)


def _unicast(number: int) -> bytes:
    return bytes([number >> 38 & 0xFE]) + (number & 0xFFFFFFFFFF).to_bytes(5, "big")


def _multicast(number: int) -> bytes:
    address = _unicast(number)
    return bytes([address[0] | 1]) + address[1:]


MACS = st.integers(1, (1 << 40) - 1).map(_unicast)


@st.composite
def _mac_tables(draw: st.DrawFn) -> MacTable:
    counts = st.sampled_from([0, 1, 2, 5, 63, 64, 65, 100])
    start = draw(st.integers(1, 1 << 46))
    unicast, multicast = draw(counts), draw(counts)
    flags = draw(st.fixed_dictionaries({}, optional=_FLAGS))
    return MacTable(
        unicast=tuple(map(_unicast, range(start, start + unicast))),
        multicast=tuple(map(_multicast, range(start, start + multicast))),
        **flags,
    )


_FLAGS = {
    "unicast_overflow": st.booleans(),
    "multicast_overflow": st.booleans(),
}
_RX = st.fixed_dictionaries({}, optional=dict.fromkeys(RxModes.model_fields, st.booleans())).map(
    lambda modes: RxModes(**modes)
)
# Mostly few; now and then all to the end.
_VID_RANGES = st.tuples(st.integers(0, 4095), st.sampled_from([*range(1, 40), 4096]))
_VLANS = st.lists(_VID_RANGES, max_size=4).map(
    lambda spans: tuple(
        sorted({vid for first, count in spans for vid in range(first, min(first + count, 4096))})
    )
)
_HASH_TYPES = st.frozensets(st.sampled_from(HashType))
_KEYS = st.binary(min_size=1, max_size=MAX_KEY)
_OFFLOADS = st.frozensets(st.sampled_from(GuestOffload))


@st.composite
def _rss(draw: st.DrawFn, pairs: int | None) -> Rss:
    max_tx = draw(st.integers(1, MAX_PAIRS)) if pairs is None else pairs
    queues = st.integers(0, max_tx - 1)
    length = 1 << draw(st.integers(0, MAX_TABLE_POWER))
    few = draw(st.lists(queues, min_size=1, max_size=8))
    return Rss(
        hash_types=draw(_HASH_TYPES),
        indirection_table=tuple(few[at % len(few)] for at in range(length)),
        unclassified_queue=draw(queues),
        max_tx_queues=max_tx,
        key=draw(_KEYS),
    )


@st.composite
def _hash_reports(draw: st.DrawFn) -> HashReport:
    hash_types = draw(_HASH_TYPES)
    key = draw(_KEYS if hash_types else _KEYS | st.just(b""))
    return HashReport(hash_types=hash_types, key=key)


@st.composite
def _coalescings(draw: st.DrawFn, pairs: int) -> Coalescing:
    queues = st.dictionaries(st.integers(0, 2 * pairs - 1).map(str), _VALUES, max_size=4)
    optional: dict[str, st.SearchStrategy[Any]] = {"rx": _VALUES, "tx": _VALUES, "queues": queues}
    return Coalescing(**draw(st.fixed_dictionaries({}, optional=optional)))


def needed_features(parts: Mapping[str, Any]) -> set[int]:
    """What the features of a state with these parts must have."""
    needed = {
        int(feature)
        for part, feature in {
            "mac": Feature.CTRL_MAC_ADDR,
            "mac_table": Feature.CTRL_RX,
            "vlans": Feature.CTRL_VLAN,
            "rss": Feature.RSS,
            "hash_report": Feature.HASH_REPORT,
            "hash_tunnel": Feature.HASH_TUNNEL,
            "guest_offloads": Feature.CTRL_GUEST_OFFLOADS,
        }.items()
        if part in parts
    }
    modes = parts["rx"].model_dump(exclude_unset=True) if "rx" in parts else {}
    if modes.keys() & {"promisc", "allmulti"}:
        needed.add(Feature.CTRL_RX)
    if any(modes.get(mode) for mode in ("alluni", "nomulti", "nouni", "nobcast")):
        needed.add(Feature.CTRL_RX_EXTRA)
    if parts.get("queue_pairs", 1) > 1 and "rss" not in parts:
        needed.add(Feature.MQ)
    coalescing = parts["coalescing"].model_fields_set if "coalescing" in parts else set()
    if coalescing & {"rx", "tx"}:
        needed.add(Feature.NOTF_COAL)
    if "queues" in coalescing:
        needed.add(Feature.VQ_NOTF_COAL)
    if needed:
        needed.add(Feature.CTRL_VQ)
    return needed | {
        int(Feature[GuestOffload(bit).name]) for bit in parts.get("guest_offloads", ())
    }


FEATURE_SETS = st.frozensets(st.sampled_from(Feature) | st.integers(100, 127), max_size=12)


@st.composite
def _parts(draw: st.DrawFn) -> dict[str, Any]:
    """Parts that agree with each other, with more often than without each."""
    parts: dict[str, Any] = {}

    def maybe(name: str, strategy: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            parts[name] = draw(strategy)

    maybe("mac", MACS)
    maybe("rx", _RX)
    maybe("mac_table", _mac_tables())
    maybe("vlans", _VLANS)
    maybe("queue_pairs", st.integers(1, MAX_PAIRS))
    pairs = parts.get("queue_pairs")
    hashing = draw(st.sampled_from(["rss", "hash_report", None]))
    if hashing == "rss":
        parts["rss"] = draw(_rss(pairs))
    elif hashing == "hash_report":
        parts["hash_report"] = draw(_hash_reports())
    enabled = parts["rss"].max_tx_queues if "rss" in parts else pairs or 1
    maybe("hash_tunnel", st.builds(HashTunnel, types=st.frozensets(st.sampled_from(TunnelType))))
    maybe("guest_offloads", _OFFLOADS)
    maybe("coalescing", _coalescings(enabled))
    return parts


@st.composite
def net_states(draw: st.DrawFn) -> NetState:
    """Valid states: any parts, any features that permit them, and others beside, which may lack
    what the specification requires with them."""
    parts = draw(_parts())
    features = frozenset(needed_features(parts) | draw(FEATURE_SETS))
    return NetState(version=1, features=features, **parts)


@st.composite
def feature_supersets(draw: st.DrawFn, features: frozenset[int]) -> frozenset[int]:
    """Feature sets that hold these and perhaps more."""
    return features | draw(FEATURE_SETS)
