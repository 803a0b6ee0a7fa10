"""What an overflowed MAC table asks for.

A device whose table overflowed gave up on that half: it lets everything through that the half was
to choose from. Only the flag tells so, and no command carries it, so a receive mode has to.
"""

from collections.abc import Mapping

from vdpad.state.model import NetState, RxModes
from vdpad.virtio.features import Feature, FeatureSet


def opened_for_overflow(state: NetState, features: FeatureSet) -> Mapping[str, str]:
    """By each half that overflowed, "unicast" or "multicast", the mode that lets it all through.

    The mode may be on already, and is promisc where that is.

    Args:
        state: the state.
        features: those of the device that will have the modes.
    """
    table, rx = state.mac_table, state.rx or RxModes()
    if table is None:
        return {}
    opened: dict[str, str] = {}
    if table.unicast_overflow:
        opened["unicast"] = "alluni" if Feature.CTRL_RX_EXTRA in features else "promisc"
    if table.multicast_overflow:
        opened["multicast"] = "allmulti"
    return dict.fromkeys(opened, "promisc") if rx.promisc else opened
