"""A receive filter, and the commands that bring a device from what it has to another one.

How it works. What opens comes before what closes: a packet that both filters let in is let in all
the time. A part that was never told is not known, since devices' resets differ, and is told
whatever it is. So after a command that was refused `HeldFilter` still says what the device has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vdpad.errors import VdpadError
from vdpad.state.formats.rx_filter import RxFilter
from vdpad.state.found import FormatError
from vdpad.state.mac_lists import mac_lists
from vdpad.virtio.commands import (
    Command,
    MacAddrSet,
    MacTableSet,
    RxAllMulti,
    RxAllUni,
    RxMode,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.features import Feature, FeatureSet

FOLLOWED: FeatureSet = frozenset(
    {
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_RX_EXTRA,
        Feature.CTRL_VLAN,
        Feature.CTRL_MAC_ADDR,
    }
)
"""By which a device is told all of a filter."""

_EVERY_VLAN = frozenset(range(4096))  # IEEE 802.1Q: twelve bits
_CLOSING = (RxNoMulti, RxNoUni, RxNoBcast)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a device is to let in."""

    mac: bytes | None = None
    """None for the one that it has."""
    modes: Mapping[type[RxMode], bool] = field(default_factory=dict)
    table: MacTableSet | None = None
    """None for the one that it has."""
    vlans: frozenset[int] = _EVERY_VLAN


WIDE = Filter(modes={RxPromisc: True, **dict.fromkeys(_CLOSING, False)})
"""Everything, whatever a device takes promiscuous mode for."""


def filter_of(shown: RxFilter, features: FeatureSet) -> Filter:
    """The filter that QEMU's device has, or a wider one where the device knows no such.

    Args:
        shown: what QEMU shows.
        features: those negotiated with the device.

    Raises:
        FormatError: no device has such a filter.
    """
    beyond = set(shown.vlan_table) - _EVERY_VLAN
    if beyond:
        raise FormatError(f"{shown.name}: expected VLAN ids below 4096, got {min(beyond)}")
    every_unicast = shown.unicast == "all" or shown.unicast_overflow
    modes: dict[type[RxMode], bool] = {
        RxAllMulti: shown.multicast == "all" or shown.multicast_overflow,
        RxNoMulti: shown.multicast == "none",
        RxNoUni: shown.unicast == "none",
        RxNoBcast: shown.nobcast,
    }
    if Feature.CTRL_RX_EXTRA in features:
        modes[RxAllUni] = every_unicast
        modes[RxPromisc] = shown.promiscuous
    else:
        modes[RxPromisc] = shown.promiscuous or every_unicast
    lists = mac_lists(reversed(shown.unicast_table), reversed(shown.multicast_table))
    return Filter(
        mac=shown.main_mac,
        modes=modes,
        table=MacTableSet(lists.unicast, lists.multicast),
        vlans=_EVERY_VLAN if shown.vlan == "all" else frozenset(shown.vlan_table),
    )


class NotFollowed(VdpadError):
    """The device has refused what would bring it to a filter."""


class HeldFilter:
    """What a device was told of its filter since its reset."""

    def __init__(self) -> None:
        """A device that was reset: no address, no modes, no tables."""
        self._mac: bytes | None = None
        self._modes: dict[type[RxMode], bool] = {}
        self._table: MacTableSet | None = None
        self._vlans: set[int] = set()

    def commands_to(self, wanted: Filter) -> Iterator[Command]:
        """What the device is to be told, in this order; each is to be `took` before the next."""
        held = self._modes
        modes = [mode(on=on) for mode, on in wanted.modes.items() if held.get(mode) is not on]
        yield from (mode for mode in modes if _opens(mode))
        yield from map(VlanAdd, sorted(wanted.vlans - self._vlans))
        if wanted.mac not in (None, self._mac):
            yield MacAddrSet(wanted.mac)
        if wanted.table not in (None, self._table):
            yield wanted.table
        yield from map(VlanDel, sorted(self._vlans - wanted.vlans))
        # Promiscuous mode last: until then nothing of the others is felt.
        yield from (mode for mode in modes if not _opens(mode))

    def took(self, command: Command) -> None:
        """The device has acknowledged one of these."""
        match command:
            case RxMode():
                self._modes[type(command)] = command.on
            case VlanAdd():
                self._vlans.add(command.vid)
            case VlanDel():
                self._vlans.discard(command.vid)
            case MacAddrSet():
                self._mac = command.mac
            case MacTableSet():
                self._table = command


def _opens(mode: RxMode) -> bool:
    return mode.on is not isinstance(mode, _CLOSING)
