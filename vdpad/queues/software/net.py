"""What the software device does with a command: a virtio-net device's settings.

As strict as the specification allows, so that what passes here is not left to a device's kindness:
features that were not negotiated, values out of range and malformed data are all acked ERR. Where
the specification is silent it does as QEMU's device does: a MAC table that is too long is accepted
and its half overflows, and any class 4 command first switches RSS off, even one that is refused.
Of what only reads back NOTF_COAL_VQ_GET is there, and statistics are not.

Source: virtio 1.4, 5.1.6.5.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vdpad.errors import VdpadError
from vdpad.virtio.commands import (
    ACK_ERR,
    ACK_OK,
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
    RxMode,
    RxPromisc,
    VlanAdd,
    VlanDel,
    decode_command,
)
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, TUNNEL_TYPES, NetConfig, offloads_of
from vdpad.virtio.features import FEATURES, Feature, FeatureSet, commanded
from vdpad.virtio.mac import format_mac

_MAC_TABLE_SIZE = 64  # both halves together
_VLANS = 4096
_CLASS_MQ = bytes([4])
_VQ_GET = bytes(CoalVqGet.CODE)
_OK, _ERR = bytes((ACK_OK,)), bytes((ACK_ERR,))
_COALESCING = struct.Struct("<II")  # struct virtio_net_ctrl_coal: packets, microseconds


class _Refused(VdpadError):
    """The command is acked ERR."""


@dataclass(slots=True)
class _Settings:
    """What a reset brings back."""

    mac: bytes
    offloads: frozenset[int]
    rx: dict[str, bool] = field(
        default_factory=lambda: {each.MODE: each is RxPromisc for each in RX_MODES}
    )
    unicast: tuple[bytes, ...] = ()
    multicast: tuple[bytes, ...] = ()
    unicast_overflow: bool = False
    multicast_overflow: bool = False
    vlans: set[int] = field(default_factory=set)
    pairs: int = 1
    hashing: MqRssConfig | MqHashConfig | None = None
    tunnel_types: frozenset[int] = frozenset()
    coalescing: dict[str, tuple[int, int]] = field(default_factory=dict)
    queue_coalescing: dict[int, tuple[int, int]] = field(default_factory=dict)


class NetDevice:
    """A virtio-net device's settings, changed by CVQ commands only."""

    def __init__(self, features: FeatureSet, config: NetConfig) -> None:
        """A device in its reset state with these negotiated features."""
        self._features = features
        self._config = config
        self._all_offloads = offloads_of(features)
        serve: Mapping[type[Command], Callable[[Any], None]] = {
            **dict.fromkeys(RX_MODES, self._rx),
            MacTableSet: self._mac_table,
            MacAddrSet: self._mac,
            VlanAdd: self._vlan_add,
            VlanDel: self._vlan_del,
            AnnounceAck: self._announce_ack,
            MqPairsSet: self._mq_pairs,
            MqRssConfig: self._rss,
            MqHashConfig: self._hash,
            GuestOffloadsSet: self._offloads,
            CoalTxSet: self._coalescing,
            CoalRxSet: self._coalescing,
            CoalVqSet: self._queue_coalescing,
            CoalVqGet: self._check_queue,
            HashTunnelSet: self._hash_tunnel,
        }
        self._serve = {
            each: carry_out for each, carry_out in serve.items() if each.lacks(features) is None
        }
        self.reset()

    def reset(self) -> None:
        """Forgets all settings (virtio 1.4, 2.4)."""
        self._now = _Settings(mac=self._config.mac, offloads=self._all_offloads)

    @property
    def config(self) -> NetConfig:
        """The config space as it is by now: it shows the address that was set."""
        return replace(self._config, mac=self._now.mac)

    def answer(self, readable: bytes, room: int) -> bytes:
        """Carries out a command and gives all that is written: its ack, and what it reads back.

        Args:
            readable: the command.
            room: bytes for the answer, at least one; what does not fit is left out.
        """
        if self.command(readable) != ACK_OK:
            return _ERR
        if readable.startswith(_VQ_GET):
            return (_OK + self._queue_coalescing_result(readable))[:room]
        return _OK

    def command(self, readable: bytes) -> int:
        """Carries out a command and gives its ack."""
        if readable[:1] == _CLASS_MQ:
            self._now.hashing = None
        try:
            command = decode_command(readable)
            carry_out = self._serve.get(type(command))
            if carry_out is None:
                return ACK_ERR
            carry_out(command)
        except (DecodeError, _Refused):
            return ACK_ERR
        return ACK_OK

    def settings(self) -> dict[str, Any]:
        """All settings in the shape of the API's state; parts without their feature left out."""
        now, features = self._now, commanded(self._features)
        shown: dict[str, Any] = {"version": 1, "features": FEATURES.names(self._features)}
        if Feature.CTRL_MAC_ADDR in features:
            shown["mac"] = format_mac(now.mac)
        modes = {each.MODE: now.rx[each.MODE] for each in RX_MODES if each.FEATURE in features}
        if modes:
            shown["rx"] = modes
        if Feature.CTRL_RX in features:
            shown["mac_table"] = self._shown_mac_table()
        if Feature.CTRL_VLAN in features:
            shown["vlans"] = sorted(now.vlans)
        if Feature.MQ in features and not self._receives_on_more_than_pairs():
            shown["queue_pairs"] = now.pairs
        if Feature.CTRL_GUEST_OFFLOADS in features:
            shown["guest_offloads"] = GUEST_OFFLOADS.names(now.offloads)
        if Feature.HASH_TUNNEL in features:
            shown["hash_tunnel"] = {"types": TUNNEL_TYPES.names(now.tunnel_types)}
        return shown | self._shown_hashing() | self._shown_coalescing()

    # --- shown ---

    def _receives_on_more_than_pairs(self) -> bool:
        """Whether RSS spreads over receive queues past its transmit queues; no state says so."""
        hashing = self._now.hashing
        return isinstance(hashing, MqRssConfig) and self._now.pairs <= max(
            *hashing.indirection_table, hashing.unclassified_queue
        )

    def _shown_mac_table(self) -> dict[str, Any]:
        now = self._now
        return {
            "unicast": [format_mac(mac) for mac in now.unicast],
            "multicast": [format_mac(mac) for mac in now.multicast],
            "unicast_overflow": now.unicast_overflow,
            "multicast_overflow": now.multicast_overflow,
        }

    def _shown_hashing(self) -> dict[str, Any]:
        hashing = self._now.hashing
        if hashing is None:
            return {}
        common = {
            "hash_types": HASH_TYPES.names(hashing.hash_types),
            "key": hashing.key.hex(),
        }
        if isinstance(hashing, MqHashConfig):
            return {"hash_report": common}
        return {
            "rss": common
            | {
                "indirection_table": list(hashing.indirection_table),
                "unclassified_queue": hashing.unclassified_queue,
                "max_tx_queues": hashing.max_tx_queues,
            }
        }

    def _shown_coalescing(self) -> dict[str, Any]:
        def values(pair: tuple[int, int]) -> dict[str, int]:
            return {"max_packets": pair[0], "max_usecs": pair[1]}

        shown: dict[str, Any] = {
            direction: values(pair) for direction, pair in self._now.coalescing.items()
        }
        if self._now.queue_coalescing:
            shown["queues"] = {
                str(queue): values(pair)
                for queue, pair in sorted(self._now.queue_coalescing.items())
            }
        return {"coalescing": shown} if shown else {}

    # --- the commands ---

    def _rx(self, command: RxMode) -> None:
        self._now.rx[command.MODE] = command.on

    def _mac(self, command: MacAddrSet) -> None:
        if command.mac[0] & 1 or not any(command.mac):
            raise _Refused
        self._now.mac = command.mac

    def _mac_table(self, command: MacTableSet) -> None:
        if any(mac[0] & 1 for mac in command.unicast):
            raise _Refused
        if not all(mac[0] & 1 for mac in command.multicast):
            raise _Refused
        now = self._now
        now.unicast_overflow = len(command.unicast) > _MAC_TABLE_SIZE
        now.unicast = () if now.unicast_overflow else tuple(dict.fromkeys(command.unicast))
        room = _MAC_TABLE_SIZE - len(now.unicast)
        now.multicast_overflow = len(command.multicast) > room
        now.multicast = () if now.multicast_overflow else tuple(dict.fromkeys(command.multicast))

    def _vlan_add(self, command: VlanAdd) -> None:
        # As mlx5: an id that is there already is refused.
        if command.vid >= _VLANS or command.vid in self._now.vlans:
            raise _Refused
        self._now.vlans.add(command.vid)

    def _vlan_del(self, command: VlanDel) -> None:
        if command.vid not in self._now.vlans:
            raise _Refused
        self._now.vlans.discard(command.vid)

    def _announce_ack(self, _: AnnounceAck) -> None:
        """It never asks for an announcement, so none is pending."""

    def _mq_pairs(self, command: MqPairsSet) -> None:
        self._set_pairs(command.pairs)

    def _set_pairs(self, pairs: int) -> None:
        if not 1 <= pairs <= self._config.max_virtqueue_pairs:
            raise _Refused
        self._now.pairs = pairs

    def _rss(self, command: MqRssConfig) -> None:
        length = len(command.indirection_table)
        if length & (length - 1) or length > self._config.rss_max_indirection_table_length:
            raise _Refused
        queues = self._config.max_virtqueue_pairs
        if max(*command.indirection_table, command.unclassified_queue) >= queues:
            raise _Refused
        self._check_hash(command.hash_types, command.key)
        if not command.key:
            raise _Refused
        self._set_pairs(command.max_tx_queues)
        self._now.hashing = command

    def _hash(self, command: MqHashConfig) -> None:
        self._check_hash(command.hash_types, command.key)
        self._now.hashing = command

    def _check_hash(self, hash_types: frozenset[int], key: bytes) -> None:
        if hash_types - self._config.supported_hash_types:
            raise _Refused
        if len(key) > self._config.rss_max_key_size or (hash_types and not key):
            raise _Refused

    def _offloads(self, command: GuestOffloadsSet) -> None:
        if command.offloads - self._all_offloads:
            raise _Refused
        self._now.offloads = command.offloads

    def _coalescing(self, command: CoalTxSet | CoalRxSet) -> None:
        transmit = isinstance(command, CoalTxSet)
        self._now.coalescing["tx" if transmit else "rx"] = (command.max_packets, command.max_usecs)
        for queue in list(self._now.queue_coalescing):
            if queue % 2 == transmit:
                del self._now.queue_coalescing[queue]

    def _check_queue(self, command: CoalVqSet | CoalVqGet) -> None:
        if command.queue >= 2 * self._config.max_virtqueue_pairs:
            raise _Refused

    def _queue_coalescing_result(self, readable: bytes) -> bytes:
        """A queue's values; those of its direction where it was given none of its own."""
        queue = int.from_bytes(readable[2:4], "little")
        of_all = self._now.coalescing.get("tx" if queue % 2 else "rx", (0, 0))
        return _COALESCING.pack(*self._now.queue_coalescing.get(queue, of_all))

    def _queue_coalescing(self, command: CoalVqSet) -> None:
        self._check_queue(command)
        self._now.queue_coalescing[command.queue] = (command.max_packets, command.max_usecs)

    def _hash_tunnel(self, command: HashTunnelSet) -> None:
        if command.tunnel_types - self._config.supported_tunnel_types:
            raise _Refused
        self._now.tunnel_types = command.tunnel_types
