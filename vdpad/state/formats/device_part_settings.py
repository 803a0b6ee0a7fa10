"""The settings that device parts carry: each one's place in a state, and the value of its part.

The value is the data of the command that sets it (vdpad/virtio/commands.py has the codecs), but for
VLAN_ADD: its value is the whole table. How that lies there the specification does not say; here it
is an array of the command's le16 ids.

Source: virtio 1.4, the network device's "Device parts" (device-types/net/description.tex).
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdpad.state.model import NetState
from vdpad.virtio.commands import (
    RX_MODES,
    Command,
    DecodeError,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxMode,
    VlanAdd,
)

_CODE_SIZE = 2

# The command's fields and the state's have the same names.
_RSS = ("hash_types", "unclassified_queue", "indirection_table", "max_tx_queues", "key")


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting stands on both sides."""

    path: str
    """Where a state has it."""
    push: Callable[[NetState], bytes | None]
    """The part's value; None where the state does not say."""
    pull: Callable[[bytes], Any]
    """What found_of takes for the path. Raises DecodeError."""


def _data(command: Command) -> bytes:
    return command.encode()[_CODE_SIZE:]


def _rx_setting(command: type[RxMode]) -> Setting:
    def push(state: NetState) -> bytes | None:
        on = getattr(state.rx, command.MODE, None)
        return None if on is None else _data(command(on))

    return Setting(f"rx.{command.MODE}", push, lambda value: command.decode(value).on)


def _push_mac_table(state: NetState) -> bytes | None:
    table = state.mac_table
    return None if table is None else _data(MacTableSet(table.unicast, table.multicast))


def _push_mac(state: NetState) -> bytes | None:
    return None if state.mac is None else _data(MacAddrSet(state.mac))


def _push_vlans(state: NetState) -> bytes | None:
    vids = state.vlans
    return None if vids is None else struct.pack(f"<{len(vids)}H", *vids)


def _pull_vlans(value: bytes) -> tuple[int, ...]:
    if len(value) % 2:
        raise DecodeError(f"{VlanAdd.NAME}: expected 2 bytes for each id, got {len(value)} bytes")
    return struct.unpack(f"<{len(value) // 2}H", value)


def _push_pairs(state: NetState) -> bytes | None:
    return None if state.queue_pairs is None else _data(MqPairsSet(state.queue_pairs))


def _push_rss(state: NetState) -> bytes | None:
    if state.rss is None:
        return None
    return _data(MqRssConfig(**{name: getattr(state.rss, name) for name in _RSS}))


def _pull_rss(value: bytes) -> dict[str, Any]:
    command = MqRssConfig.decode(value)
    return {name: getattr(command, name) for name in _RSS}


def _push_hash_report(state: NetState) -> bytes | None:
    report = state.hash_report
    return None if report is None else _data(MqHashConfig(report.hash_types, report.key))


def _pull_hash_report(value: bytes) -> dict[str, Any]:
    command = MqHashConfig.decode(value)
    return {"hash_types": command.hash_types, "key": command.key}


# In the order of the specification's list of selectors, which has ANNOUNCE_ACK as well.
SETTINGS: Mapping[type[Command], Setting] = {
    **{command: _rx_setting(command) for command in RX_MODES},
    MacTableSet: Setting("mac_table", _push_mac_table, MacTableSet.decode),
    MacAddrSet: Setting("mac", _push_mac, lambda value: MacAddrSet.decode(value).mac),
    VlanAdd: Setting("vlans", _push_vlans, _pull_vlans),
    MqPairsSet: Setting("queue_pairs", _push_pairs, lambda value: MqPairsSet.decode(value).pairs),
    MqRssConfig: Setting("rss", _push_rss, _pull_rss),
    MqHashConfig: Setting("hash_report", _push_hash_report, _pull_hash_report),
}
