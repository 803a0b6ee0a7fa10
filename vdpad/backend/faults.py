"""What keeps a device from serving a guest. The front end is told, and an operator."""

from vdpad.errors import VdpadError
from vdpad.restore.report import Report
from vdpad.state.problems import Problem


class BackEndError(VdpadError):
    """The device is not given to the guest as the front end wants it."""


class SharedAddressSpace(BackEndError):
    """The guest's descriptors could name the CVQ's ring, and nobody has said that they may."""


class CannotStart(BackEndError):
    """The device does not begin to serve these rings."""


class NotRestored(CannotStart):
    """The device does not take what the guest had set before."""

    def __init__(
        self, why: str, *, problems: tuple[Problem, ...] = (), report: Report | None = None
    ) -> None:
        """
        Args:
            why: a sentence for people.
            problems: what of the state it cannot take; then nothing was tried.
            report: what became of the commands; None where none were sent.
        """
        super().__init__(why)
        self.problems = problems
        self.report = report


class DeviceRuns(BackEndError):
    """A guest has the device, and what was asked for would take it away."""


class NoSuchDevice(BackEndError):
    """There is no device of this name that a back end can own."""


class SwitchUnderWay(BackEndError):
    """Another device is about to take over already."""


class CannotSwitch(BackEndError):
    """Another device does not take over."""


class MayNotSwitch(CannotSwitch):
    """This process lacks the permission for what the other device needs."""


class NotAnswered(BackEndError):
    """The device did with a command what no device may, or nothing."""
