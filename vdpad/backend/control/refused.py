"""What a back end's device raises, as the refusal that a caller is told."""

from collections.abc import Mapping
from dataclasses import asdict

from vdpad.backend.faults import (
    DeviceRuns,
    MayNotSwitch,
    NoSuchDevice,
    NotRestored,
    SwitchUnderWay,
)
from vdpad.errors import VdpadError
from vdpad.host.vdpa import NoSuchVdpaDevice
from vdpad.queues.software.tap import TapBusy, TapNotPermitted
from vdpad.queues.vhost_vdpa.errors import MemoryLimit, NodeBusy, NoSuchNode, NotPermitted
from vdpad.restore.replay import Outcome
from vdpad.service.refusal import Kind, Refusal

_KINDS: Mapping[Outcome, Kind] = {
    Outcome.REJECTED: Kind.REJECTED,
    Outcome.INCOMPLETE: Kind.TIMEOUT,
    Outcome.BROKEN: Kind.DEVICE_BROKEN,
}
"""Of what a replay came to."""


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that an error means to a caller; None for what is a fault of ours."""
    match error:
        case Refusal():
            return error
        case DeviceRuns() | SwitchUnderWay() | NodeBusy() | TapBusy():
            return Refusal(Kind.BUSY, str(error))
        case NoSuchDevice() | NoSuchNode() | NoSuchVdpaDevice():
            return Refusal(Kind.NO_SUCH_DEVICE, str(error))
        case NotPermitted() | TapNotPermitted() | MemoryLimit() | MayNotSwitch():
            return Refusal(Kind.NOT_ALLOWED, str(error))
        case NotRestored():
            return _not_restored(error)
        case VdpadError():
            # A device that does not come up, in the words of whoever drives it.
            return Refusal(Kind.DEVICE_BROKEN, str(error))
    return None


def _not_restored(error: NotRestored) -> Refusal:
    if error.report is not None:
        kind = _KINDS[error.report.outcome]
        return Refusal(kind, str(error), report=error.report.to_json())
    problems = [asdict(each) for each in error.problems]
    return Refusal(Kind.INCOMPATIBLE, str(error), problems=problems)
