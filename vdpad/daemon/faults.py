"""What lower rooms raise, as the refusal that a caller is told: the one place that says so."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from vdpad.daemon.devices.opening import OwnedElsewhere
from vdpad.host.vdpa import (
    NetlinkForbidden,
    NetlinkStuck,
    NoSuchVdpaDevice,
    NotANetworkDevice,
    NotLoaded,
    VdpaError,
)
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.vhost_vdpa.errors import (
    MemoryLimit,
    NodeBusy,
    NoSuchNode,
    NotPermitted,
    VhostVdpaError,
)
from vdpad.queues.vhost_vdpa.memory import NoMemory
from vdpad.restore.plan import DoesNotFit
from vdpad.service.refusal import Kind, Refusal

# By the nearest class that stands here.
_KINDS: Mapping[type, Kind] = {
    BadLend: Kind.BAD_LEND,
    DoesNotFit: Kind.INCOMPATIBLE,
    VhostVdpaError: Kind.DEVICE_BROKEN,
    NoSuchNode: Kind.NO_SUCH_DEVICE,
    NodeBusy: Kind.BUSY,
    NotPermitted: Kind.NOT_ALLOWED,
    MemoryLimit: Kind.NOT_ALLOWED,
    NoMemory: Kind.OVERLOADED,
    VdpaError: Kind.INTERNAL,
    NotLoaded: Kind.NO_SUCH_DEVICE,
    NoSuchVdpaDevice: Kind.NO_SUCH_DEVICE,
    NotANetworkDevice: Kind.NO_SUCH_DEVICE,
    NetlinkStuck: Kind.BUSY,
    NetlinkForbidden: Kind.NOT_ALLOWED,
}

# What goes with some of them, as docs/api.md has it.
_DATA: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    BadLend: lambda error: {"reason": str(error)},
    DoesNotFit: lambda error: {"problems": [asdict(each) for each in error.problems]},
    OwnedElsewhere: lambda error: {"holders": [asdict(each) for each in error.holders]},
}


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that an error means to a caller; None for what is a fault of ours."""
    if isinstance(error, Refusal):
        return error
    for each in type(error).__mro__:
        if each in _KINDS:
            return Refusal(_KINDS[each], str(error), **_data(error))
    return None


def _data(error: BaseException) -> dict[str, Any]:
    make = _DATA.get(type(error))
    return {} if make is None else make(error)
