"""What vdpad finds in a stream of the guest, held against what the guest says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import BinaryIO

from vdpad.state.formats.qemu import read_stream
from vdpad.state.found import Found
from vdpad.state.model import MacTable, NetState
from vdpad.virtio.features import unmet_requirements

from .machine import INTERFACES, Guest
from .said import Said, in_state, said_of

NEVER_ADDED = 4095
"""A VLAN id that Linux takes for none."""
SLOTS = {f"eth{at}": f"0000:00:{3 + at:02x}.0" for at in range(len(INTERFACES))}


def found_by_place(stream: BinaryIO) -> Mapping[str, Found]:
    """What is found in a stream, by where each device is."""
    return {found.device: found for found in read_stream(stream).devices}


def found_in(guest: Guest) -> Mapping[str, Found]:
    """What is found in a stream of the guest now."""
    with guest.stream() as stream:
        return found_by_place(stream)


def state_of(guest: Guest, name: str = "eth0", gone: Collection[int] = ()) -> NetState:
    """The state of an interface, by a stream; it must be what the guest says.

    Args:
        guest: whose interface it is.
        name: of the interface.
        gone: VLAN ids that the guest has added and deleted since the device was reset.
    """
    said = said_of(guest, name)
    found = found_in(guest)[SLOTS[name]]
    assert found.state is not None, found.problems
    assert in_state(found.state) == with_vlans_of_reset(guest, said, gone)
    assert found.missing == ()
    # Linux draws the key by chance, and one that ends with zero is worth a note.
    notes = set(found.notes) - set(unmet_requirements(found.state.features))
    assert not notes or (said.key and not said.key[-1])
    return found.state


def unsaid_state_of(guest: Guest, name: str = "eth0") -> NetState:
    """The same, where it is not what the guest says."""
    found = found_in(guest)[SLOTS[name]]
    assert found.state is not None, found.problems
    return found.state


def with_vlans_of_reset(guest: Guest, said: Said, gone: Collection[int]) -> Said:
    """What the guest says, and the VLAN ids that are in the filter though nobody added them.

    QEMU 10.0 begins with all of them where 7.2 begins with none.
    """
    first = guest.qmp("query-rx-filter")[0]["vlan-table"]
    if said.vlans is None or NEVER_ADDED not in first:
        return said
    return replace(said, vlans=tuple(sorted({*range(4096), *said.vlans} - set(gone))))


def table_of(state: NetState) -> MacTable:
    """Its MAC table, which it must have."""
    assert state.mac_table is not None
    return state.mac_table


def hash_types_of(state: NetState) -> frozenset[int]:
    """Of its RSS or its hash report, of which it must have one."""
    hashes = state.rss or state.hash_report
    assert hashes is not None
    return hashes.hash_types


def packed(macs: tuple[str, ...]) -> set[bytes]:
    """Addresses as a state has them."""
    return {bytes.fromhex(mac.replace(":", "")) for mac in macs}
