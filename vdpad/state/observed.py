"""What commands set of a state, and what is found in it.

What they set stands by the dotted paths of a state's parts ("rx.promisc"), in the form that a
state has in memory. Most set parts as a whole, some one entry of a table.

Source: virtio 1.4, 5.1.6.5; QEMU hw/net/virtio-net.c.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from vdpad.state.found import Found, Missing, found_of
from vdpad.state.mac_lists import mac_lists
from vdpad.virtio.commands import (
    COMMANDS,
    RX_MODES,
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqGet,
    CoalVqSet,
    Command,
    DecodeError,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    VlanAdd,
    VlanDel,
    decode_command,
)
from vdpad.virtio.features import Feature, FeatureSet

Observed = dict[str, Any]
"""Values by the dotted paths of their parts."""

MAX_COMMAND = 1 << 18
"""The longest command that is decoded, in bytes.

About twice the largest RSS command; 43 000 addresses, more than a request to vdpad can carry. Stops
a guest's endless MAC table from growing manifold in the memory of who decodes it.
"""

_CLASS_STATS = 8
_STATELESS = {AnnounceAck.CODE, CoalVqGet.CODE}
# IEEE 802.1Q: twelve bits; the command has sixteen, and virtio 1.4, "VLAN Filtering" no limit.
_VLANS = 4096


def _fields(command: Any) -> dict[str, Any]:
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}


NO_OFFLOADS: FeatureSet = frozenset({Feature.GUEST_HDRLEN})
"""What drivers set among the offloads, by a feature's number, though it is none.

GUEST_HDRLEN promises something of what a driver sends (virtio 1.4, 5.1.3); 5.1.6.5.6 does not list
it, and there is nothing of it to switch. Linux 6.12 sets it with the rest wherever it is negotiated
(drivers/net/virtio_net.c, guest_offloads). So a state does not have it, and no device is sent it.
"""


def _offloads(command: GuestOffloadsSet) -> frozenset[int]:
    return command.offloads - NO_OFFLOADS


_ON = attrgetter("on")

SETS: Mapping[type[Command], Mapping[str, Callable[[Any], Any]]] = {
    **{each: {f"rx.{each.MODE}": _ON} for each in RX_MODES},
    MacTableSet: {"mac_table": _fields},
    MacAddrSet: {"mac": attrgetter("mac")},
    MqPairsSet: {"queue_pairs": attrgetter("pairs")},
    MqRssConfig: {"queue_pairs": attrgetter("max_tx_queues"), "rss": _fields},
    MqHashConfig: {"hash_report": _fields},
    GuestOffloadsSet: {"guest_offloads": _offloads},
    CoalTxSet: {"coalescing.tx": _fields},
    CoalRxSet: {"coalescing.rx": _fields},
    HashTunnelSet: {"hash_tunnel": lambda command: {"types": command.tunnel_types}},
}
"""The parts that a command tells as a whole, by their dotted paths, and their values."""

ADDS_TO: Mapping[type[Command], str] = {
    VlanAdd: "vlans",
    VlanDel: "vlans",
    CoalVqSet: "coalescing.queues",
}
"""The part of which a command tells one entry."""


def _code(readable: bytes) -> tuple[int, int]:
    """Class and command; of fewer bytes than these, none that there is."""
    return (readable[0], readable[1]) if len(readable) > 1 else (-1, -1)


def carries_no_state(readable: bytes) -> bool:
    """Whether it is a command that only asks, or that belongs to a conversation."""
    return readable[:1] == bytes([_CLASS_STATS]) or _code(readable) in _STATELESS


def kind_of(readable: bytes) -> type[Command] | None:
    """The command by its first two bytes; None where that is none."""
    return COMMANDS.get(_code(readable))


def decode(readable: bytes) -> Command:
    """The command, where it is not too long to be kept.

    Raises:
        DecodeError: it is, or as decode_command.
    """
    if len(readable) > MAX_COMMAND:
        raise DecodeError(f"expected at most {MAX_COMMAND} bytes, got {len(readable)}")
    return decode_command(readable)


def found_from(observed: Observed, lost: Iterable[Missing], features: FeatureSet) -> Found:
    """What these are as a state, if they are one.

    Args:
        observed: changed, where a state has it in another way.
        lost: parts that are not known.
        features: the negotiated ones.
    """
    notes = [*_resolve_rss(observed), *_resolve_mac_table(observed)]
    missing = [*_resolve_pairs(observed, features), *_resolve_vlans(observed)]
    by_part = {each.part: each for each in (*missing, *lost)}
    return found_of(
        {"features": features, **observed},
        missing=(by_part[part] for part in sorted(by_part)),
        notes=notes,
    )


# --- each changes what was set to what a state can say, and gives what there is to say of it ---


def _resolve_rss(observed: Observed) -> list[str]:
    rss = observed.get("rss")
    if rss is None or rss["hash_types"] or rss["key"]:
        return []
    del observed["rss"]
    return ["RSS without hash types and key is taken as switched off, as QEMU's device does"]


def _resolve_mac_table(observed: Observed) -> tuple[str, ...]:
    table = observed.get("mac_table")
    if table is None:
        return ()
    lists = mac_lists(table["unicast"], table["multicast"])
    observed["mac_table"] = {**table, "unicast": lists.unicast, "multicast": lists.multicast}
    return lists.notes


def _resolve_pairs(observed: Observed, features: FeatureSet) -> list[Missing]:
    pairs = observed.get("queue_pairs", 1)
    if "rss" in observed:
        # Receive queues past the transmit queues: a state tells these pairs by rss alone.
        if pairs <= max(
            *observed["rss"]["indirection_table"], observed["rss"]["unclassified_queue"]
        ):
            del observed["queue_pairs"]
        return []
    if pairs <= 1 or Feature.MQ in features:
        return []
    del observed["queue_pairs"]
    why = f"{pairs} by RSS that is off by now; without MQ nothing else sets them"
    return [Missing("queue_pairs", why)]


def _resolve_vlans(observed: Observed) -> list[Missing]:
    vlans = observed.get("vlans", ())
    beyond = [vid for vid in vlans if vid >= _VLANS]
    if not beyond:
        return []
    observed["vlans"] = vlans[: -len(beyond)]
    more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    return [Missing("vlans", f"VLAN {beyond[0]}{more}: expected ids of at most {_VLANS - 1}")]
