"""What two states differ in, by name: never a dump of both.

Sets and tables tell what stands in one only, values tell both, a long table tells how much of it
differs and where first. Two states differ in nothing exactly where they are equal.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from vdpad.state import wording
from vdpad.state.fields import runs
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
from vdpad.virtio.bits import BitNames
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, TUNNEL_TYPES
from vdpad.virtio.features import FEATURES
from vdpad.virtio.mac import format_mac

T = TypeVar("T")


class DifferenceKind(StrEnum):
    """In what way two states differ at a path."""

    ONLY_FIRST = "only-first"
    """The second lacks it."""
    ONLY_SECOND = "only-second"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two states say different things."""

    path: str
    """Where in the states, dotted: "rss.indirection_table"."""
    kind: DifferenceKind
    what: str
    """What only one has, or both values, for people."""


Differences = Iterator[Difference]


def differences(first: NetState, second: NetState) -> list[Difference]:
    """All that differs, in the order of a state's parts; none where the states are equal."""
    return list(_differences(first, second))


def _differences(a: NetState, b: NetState) -> Differences:
    yield from _names("features", a.features, b.features, FEATURES)
    yield from _value("mac", a.mac, b.mac, format_mac)
    yield from _part("rx", a.rx, b.rx, _rx)
    yield from _part("mac_table", a.mac_table, b.mac_table, _mac_table)
    yield from _part("vlans", a.vlans, b.vlans, _vlans)
    yield from _value("queue_pairs", a.queue_pairs, b.queue_pairs)
    yield from _part("rss", a.rss, b.rss, _rss)
    yield from _part("hash_report", a.hash_report, b.hash_report, _hash_report)
    yield from _part("hash_tunnel", a.hash_tunnel, b.hash_tunnel, _hash_tunnel)
    yield from _part("guest_offloads", a.guest_offloads, b.guest_offloads, _offloads)
    yield from _part("coalescing", a.coalescing, b.coalescing, _coalescing)


# --- the parts ---


def _rx(path: str, a: RxModes, b: RxModes) -> Differences:
    for mode in RxModes.model_fields:
        yield from _value(f"{path}.{mode}", getattr(a, mode), getattr(b, mode), _switch)


def _mac_table(path: str, a: MacTable, b: MacTable) -> Differences:
    for half in ("unicast", "multicast"):
        yield from _addresses(f"{path}.{half}", getattr(a, half), getattr(b, half))
    for flag in ("unicast_overflow", "multicast_overflow"):
        yield from _value(f"{path}.{flag}", getattr(a, flag), getattr(b, flag), _switch)


def _addresses(path: str, a: tuple[bytes, ...], b: tuple[bytes, ...]) -> Differences:
    first, second = dict.fromkeys(a), dict.fromkeys(b)
    if a != b and first.keys() == second.keys():
        yield Difference(path, DifferenceKind.CHANGED, "the same addresses in another order")
    yield from _only(path, [each for each in a if each not in second], DifferenceKind.ONLY_FIRST)
    yield from _only(path, [each for each in b if each not in first], DifferenceKind.ONLY_SECOND)


def _only(path: str, addresses: Sequence[bytes], kind: DifferenceKind) -> Differences:
    if addresses:
        yield Difference(path, kind, wording.some([format_mac(each) for each in addresses]))


def _vlans(path: str, a: tuple[int, ...], b: tuple[int, ...]) -> Differences:
    first, second = set(a), set(b)
    only = {
        DifferenceKind.ONLY_FIRST: first - second,
        DifferenceKind.ONLY_SECOND: second - first,
    }
    for kind, ids in only.items():
        if ids:
            told = f"{wording.count(len(ids), 'id')}: {wording.ranges(runs(sorted(ids)))}"
            yield Difference(path, kind, told)


def _rss(path: str, a: Rss, b: Rss) -> Differences:
    yield from _names(f"{path}.hash_types", a.hash_types, b.hash_types, HASH_TYPES)
    table = f"{path}.indirection_table"
    yield from _row(table, a.indirection_table, b.indirection_table, "entry", "entries", str)
    yield from _value(f"{path}.unclassified_queue", a.unclassified_queue, b.unclassified_queue)
    yield from _value(f"{path}.max_tx_queues", a.max_tx_queues, b.max_tx_queues)
    yield from _row(f"{path}.key", a.key, b.key, "byte", "bytes", _hex)


def _hash_report(path: str, a: HashReport, b: HashReport) -> Differences:
    yield from _names(f"{path}.hash_types", a.hash_types, b.hash_types, HASH_TYPES)
    yield from _row(f"{path}.key", a.key, b.key, "byte", "bytes", _hex)


def _hash_tunnel(path: str, a: HashTunnel, b: HashTunnel) -> Differences:
    yield from _names(f"{path}.types", a.types, b.types, TUNNEL_TYPES)


def _offloads(path: str, a: frozenset[int], b: frozenset[int]) -> Differences:
    yield from _names(path, a, b, GUEST_OFFLOADS)


def _coalescing(path: str, a: Coalescing, b: Coalescing) -> Differences:
    for direction in ("rx", "tx"):
        yield from _part(
            f"{path}.{direction}", getattr(a, direction), getattr(b, direction), _moderation
        )
    yield from _part(f"{path}.queues", a.queues, b.queues, _queues)


def _queues(
    path: str, a: dict[str, CoalescingValues], b: dict[str, CoalescingValues]
) -> Differences:
    for queue in sorted(a.keys() | b.keys(), key=int):
        yield from _part(f"{path}.{queue}", a.get(queue), b.get(queue), _moderation)


def _moderation(path: str, a: CoalescingValues, b: CoalescingValues) -> Differences:
    for value in CoalescingValues.model_fields:
        yield from _value(f"{path}.{value}", getattr(a, value), getattr(b, value))


# --- what any part is made of ---


def _part(
    path: str, a: T | None, b: T | None, compare: Callable[[str, T, T], Differences]
) -> Differences:
    """A part that both may have."""
    if a is not None and b is not None:
        yield from compare(path, a, b)
    elif a is not None or b is not None:
        kind = DifferenceKind.ONLY_SECOND if a is None else DifferenceKind.ONLY_FIRST
        yield Difference(path, kind, "the whole part")


def _value(path: str, a: T | None, b: T | None, show: Callable[[T], str] = str) -> Differences:
    """A value that both may have."""
    if a is None and b is not None:
        yield Difference(path, DifferenceKind.ONLY_SECOND, show(b))
    elif a is not None and b is None:
        yield Difference(path, DifferenceKind.ONLY_FIRST, show(a))
    elif a is not None and b is not None and a != b:
        yield Difference(path, DifferenceKind.CHANGED, _both(show(a), show(b)))


def _names(path: str, a: frozenset[int], b: frozenset[int], names: BitNames) -> Differences:
    """A set of named bits."""
    if a - b:
        yield Difference(path, DifferenceKind.ONLY_FIRST, names.sentence(a - b))
    if b - a:
        yield Difference(path, DifferenceKind.ONLY_SECOND, names.sentence(b - a))


def _row(
    path: str, a: Sequence[Any], b: Sequence[Any], one: str, many: str, show: Callable[[Any], str]
) -> Differences:
    """A row of entries, of which the place matters."""
    if len(a) != len(b):
        lengths = _both(*(wording.count(len(row), one, many) for row in (a, b)))
        yield Difference(path, DifferenceKind.CHANGED, lengths)
        return
    differing = [at for at in range(len(a)) if a[at] != b[at]]
    if differing:
        at = differing[0]
        first = f"the first is {one} {at}, {_both(show(a[at]), show(b[at]))}"
        what = f"{len(differing)} of {wording.count(len(a), one, many)}; {first}"
        yield Difference(path, DifferenceKind.CHANGED, what)


def _both(first: str, second: str) -> str:
    return f"{first} in the first, {second} in the second"


def _switch(value: bool) -> str:
    return "on" if value else "off"


def _hex(byte: int) -> str:
    return f"{byte:02x}"
