"""NetState: the settings of a virtio-net device as its guest made them through the CVQ.

Every part is optional, and one that is absent is not restored. A state is checked in three steps,
and what passes is a state that a guest can have made on some device: the types (strict, no unknown
key, no null), each part by itself (tables, ranges), and the parts against each other and against
the features that the guest negotiated. Whether a certain device can take it is the plan's question.

Features are not held against each other: real guests run with sets that the specification does not
allow (unmet_requirements), and the only question is whether a part's commands could be sent.

The shape is the contract of docs/api.md; its JSON Schema is docs/netstate.schema.json.
"""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from vdpad.state.fields import (
    U16,
    U32,
    FeatureNames,
    HashTypeNames,
    IndirectionTable,
    Key,
    MacAddress,
    MacAddresses,
    OffloadNames,
    OrAbsent,
    TunnelTypeNames,
    Vlans,
    is_multicast,
)
from vdpad.state.problems import InvalidPart, first_of, invalid
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, MAX_QUEUE_PAIRS, offloads_of
from vdpad.virtio.features import Feature
from vdpad.virtio.mac import format_mac

__all__ = [
    "Coalescing",
    "CoalescingValues",
    "HashReport",
    "HashTunnel",
    "MacTable",
    "NetState",
    "Rss",
    "RxModes",
]

QueuePairs = Annotated[int, Field(ge=1, le=MAX_QUEUE_PAIRS)]
# Stops a map that is all wrong from making problems of each member.
_FIRST_ALONE = Field(fail_fast=True)

QueueIndex = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,4})$")]


class Part(StrictModel):
    """A part of a state: frozen, strict, no unknown keys, no nulls."""

    @model_validator(mode="after")
    def _refuse_faults(self) -> Self:
        if faults := first_of(self.faults()):
            raise invalid(*faults)
        return self

    def faults(self) -> Iterator[InvalidPart]:
        """What is wrong with the part as a whole."""
        return iter(())


class RxModes(Part):
    """Receive modes; one that is absent is not sent."""

    promisc: Annotated[bool | None, OrAbsent()] = None
    allmulti: Annotated[bool | None, OrAbsent()] = None
    alluni: Annotated[bool | None, OrAbsent()] = None
    nomulti: Annotated[bool | None, OrAbsent()] = None
    nouni: Annotated[bool | None, OrAbsent()] = None
    nobcast: Annotated[bool | None, OrAbsent()] = None


class MacTable(Part):
    """The addresses that are received beside the device's own.

    An overflow flag says that the device gave up on that half: its entries are not all there.
    """

    unicast: MacAddresses = ()
    multicast: MacAddresses = ()
    unicast_overflow: bool = False
    multicast_overflow: bool = False

    def faults(self) -> Iterator[InvalidPart]:
        yield from _table_faults("unicast", self.unicast, multicast=False)
        yield from _table_faults("multicast", self.multicast, multicast=True)


def _table_faults(name: str, macs: tuple[bytes, ...], *, multicast: bool) -> Iterator[InvalidPart]:
    seen: set[bytes] = set()
    for at, mac in enumerate(macs):
        if is_multicast(mac) is not multicast:
            yield (name, at), "wrong-table", f"{format_mac(mac)} is not a {name} address"
        if mac in seen:
            yield (name, at), "duplicate", f"{format_mac(mac)} is there twice"
        seen.add(mac)


class Rss(Part):
    """Receive-side scaling, switched on."""

    hash_types: HashTypeNames
    indirection_table: IndirectionTable
    """Receive queue numbers from 0; a power of two of them."""
    unclassified_queue: U16
    max_tx_queues: QueuePairs
    key: Key

    def faults(self) -> Iterator[InvalidPart]:
        length = len(self.indirection_table)
        if length & (length - 1):
            yield (
                ("indirection_table",),
                "not-a-power-of-two",
                f"expected a power of two of entries, got {length}",
            )
        if not self.key:
            # QEMU takes an RSS command without types and key for one that switches RSS off.
            yield ("key",), "empty", "expected a key, as rss is about RSS that is switched on"


class HashReport(Part):
    """The hash that is reported with each packet, without RSS."""

    hash_types: HashTypeNames
    key: Key

    def faults(self) -> Iterator[InvalidPart]:
        if self.hash_types and not self.key:
            names = HASH_TYPES.sentence(self.hash_types)
            yield ("key",), "empty", f"expected a key to hash {names} with, got an empty one"


class HashTunnel(Part):
    """Of which encapsulations the inner headers are hashed ("Inner Header Hash")."""

    types: TunnelTypeNames


class CoalescingValues(Part):
    """When an interrupt is sent: after so many packets or so many microseconds; 0 is at once."""

    max_packets: U32
    max_usecs: U32


class Coalescing(Part):
    """Interrupt moderation, per direction and per virtqueue (index as a decimal string)."""

    rx: Annotated[CoalescingValues | None, OrAbsent()] = None
    tx: Annotated[CoalescingValues | None, OrAbsent()] = None
    queues: Annotated[
        Annotated[dict[QueueIndex, CoalescingValues], _FIRST_ALONE] | None, OrAbsent()
    ] = None


class NetState(Part):
    """A virtio-net device's settings, version 1."""

    version: Annotated[int, Field(ge=1, le=1)]
    features: FeatureNames
    """What the guest's driver negotiated on the source."""
    mac: Annotated[MacAddress | None, OrAbsent()] = None
    rx: Annotated[RxModes | None, OrAbsent()] = None
    mac_table: Annotated[MacTable | None, OrAbsent()] = None
    vlans: Annotated[Vlans | None, OrAbsent()] = None
    queue_pairs: Annotated[QueuePairs | None, OrAbsent()] = None
    rss: Annotated[Rss | None, OrAbsent()] = None
    hash_report: Annotated[HashReport | None, OrAbsent()] = None
    hash_tunnel: Annotated[HashTunnel | None, OrAbsent()] = None
    guest_offloads: Annotated[OffloadNames | None, OrAbsent()] = None
    coalescing: Annotated[Coalescing | None, OrAbsent()] = None

    def faults(self) -> Iterator[InvalidPart]:
        yield from self._ungated_faults()
        yield from self._mac_faults()
        yield from self._queue_faults()
        yield from self._offload_faults()

    def needs(self) -> Iterator[tuple[tuple[str | int, ...], tuple[Feature, ...]]]:
        """Each part that is there, and the features of which one permits its commands."""
        if self.mac is not None:
            yield ("mac",), (Feature.CTRL_MAC_ADDR,)
        if self.rx is not None:
            yield from self._rx_needs(self.rx)
        if self.mac_table is not None:
            yield ("mac_table",), (Feature.CTRL_RX,)
        if self.vlans is not None:
            yield ("vlans",), (Feature.CTRL_VLAN,)
        if self.queue_pairs is not None and self.queue_pairs > 1:
            yield ("queue_pairs",), (Feature.MQ, Feature.RSS)
        if self.rss is not None:
            yield ("rss",), (Feature.RSS,)
        if self.hash_report is not None:
            yield ("hash_report",), (Feature.HASH_REPORT,)
        if self.hash_tunnel is not None:
            yield ("hash_tunnel",), (Feature.HASH_TUNNEL,)
        if self.guest_offloads is not None:
            yield ("guest_offloads",), (Feature.CTRL_GUEST_OFFLOADS,)
        if self.coalescing is not None:
            yield from self._coalescing_needs(self.coalescing)

    @staticmethod
    def _rx_needs(rx: RxModes) -> Iterator[tuple[tuple[str | int, ...], tuple[Feature, ...]]]:
        for mode in ("promisc", "allmulti"):
            if getattr(rx, mode) is not None:
                yield ("rx", mode), (Feature.CTRL_RX,)
        for mode in ("alluni", "nomulti", "nouni", "nobcast"):
            # Off is all that a device without the feature can be, so it asks for nothing.
            if getattr(rx, mode):
                yield ("rx", mode), (Feature.CTRL_RX_EXTRA,)

    @staticmethod
    def _coalescing_needs(
        coalescing: Coalescing,
    ) -> Iterator[tuple[tuple[str | int, ...], tuple[Feature, ...]]]:
        for direction in ("rx", "tx"):
            if getattr(coalescing, direction) is not None:
                yield ("coalescing", direction), (Feature.NOTF_COAL,)
        if coalescing.queues is not None:
            yield ("coalescing", "queues"), (Feature.VQ_NOTF_COAL,)

    def _ungated_faults(self) -> Iterator[InvalidPart]:
        for path, wanted in self.needs():
            if not self.features.intersection(wanted):
                either = " or ".join(each.name for each in wanted)
                yield path, "needs-feature", f"expected {either} among the state's features"
            elif Feature.CTRL_VQ not in self.features:
                text = "expected CTRL_VQ among the state's features, as commands set this"
                yield path, "needs-feature", text

    def _mac_faults(self) -> Iterator[InvalidPart]:
        if self.mac is not None and (is_multicast(self.mac) or not any(self.mac)):
            got = format_mac(self.mac)
            yield ("mac",), "not-unicast", f"expected a unicast address that is not zero, got {got}"

    def _queue_faults(self) -> Iterator[InvalidPart]:
        if self.rss is None:
            if self.queue_pairs is not None and self.queue_pairs > 1:
                yield from self._unset_pairs_faults()
            return
        if self.hash_report is not None:
            yield ("hash_report",), "conflict", "a device holds either rss or hash_report, not both"
        if self.queue_pairs is None:
            return
        if self.rss.max_tx_queues != self.queue_pairs:
            yield (
                ("rss", "max_tx_queues"),
                "conflict",
                f"RSS sets the queue pairs too: expected {self.queue_pairs} as in queue_pairs, "
                f"got {self.rss.max_tx_queues}",
            )
        yield from self.rss_queue_faults(self.queue_pairs)

    def _unset_pairs_faults(self) -> Iterator[InvalidPart]:
        if Feature.MQ not in self.features:
            yield ("queue_pairs",), "needs-feature", "without MQ only rss sets the queue pairs"

    def rss_queue_faults(self, pairs: int) -> Iterator[InvalidPart]:
        """Where RSS names a receive queue that so many pairs do not have."""
        if self.rss is None:
            return
        outside = [at for at, queue in enumerate(self.rss.indirection_table) if queue >= pairs]
        if outside:
            queue = self.rss.indirection_table[outside[0]]
            others = f" (and {len(outside) - 1} more entries)" if len(outside) > 1 else ""
            yield (
                ("rss", "indirection_table", outside[0]),
                "out-of-range",
                f"receive queue {queue} is not among queues 0 … {pairs - 1}{others}",
            )
        if self.rss.unclassified_queue >= pairs:
            yield (
                ("rss", "unclassified_queue"),
                "out-of-range",
                f"receive queue {self.rss.unclassified_queue} is not among queues 0 … {pairs - 1}",
            )

    def _offload_faults(self) -> Iterator[InvalidPart]:
        missing = (self.guest_offloads or frozenset()) - offloads_of(self.features)
        if missing:
            names = GUEST_OFFLOADS.sentence(missing)
            yield (
                ("guest_offloads",),
                "needs-feature",
                f"expected {names} among the state's features",
            )
