"""The lists of MAC_TABLE_SET as drivers send them, brought to the form that a state has.

The specification tells a driver to send unicast addresses in the first list and the others in the
second (virtio 1.4, "Setting MAC Address Filtering"), but devices acknowledge what stands in the
wrong list and what stands there twice. A state has each address once, in the list that its group
bit says.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vdpad.state.fields import is_multicast
from vdpad.virtio.mac import format_mac


@dataclass(frozen=True, slots=True)
class MacLists:
    """Two lists that a state takes."""

    unicast: tuple[bytes, ...]
    multicast: tuple[bytes, ...]
    notes: tuple[str, ...]
    """What was put elsewhere, as sentences."""


def mac_lists(unicast: Iterable[bytes], multicast: Iterable[bytes]) -> MacLists:
    """Each address once, in its own list, in the order in which they came.

    An address in the wrong list matches nothing on some devices and matches on others; in its own
    it matches on all, so the filter may let through more than on the source, and never less.
    """
    first, second = dict.fromkeys(unicast), dict.fromkeys(multicast)
    every = first | second
    return MacLists(
        unicast=tuple(mac for mac in every if not is_multicast(mac)),
        multicast=tuple(mac for mac in every if is_multicast(mac)),
        notes=(
            *_misplaced("unicast", [mac for mac in first if is_multicast(mac)]),
            *_misplaced("multicast", [mac for mac in second if not is_multicast(mac)]),
        ),
    )


def _misplaced(half: str, macs: list[bytes]) -> Iterator[str]:
    if macs:
        more = f" and {len(macs) - 1} more" if len(macs) > 1 else ""
        yield f"{format_mac(macs[0])}{more} stood in the MAC table's {half} half"
