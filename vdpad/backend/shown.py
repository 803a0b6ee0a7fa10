"""What is asked of a back end's device beside what a session asks: to be shown to people.

Everything here may be asked at any time, waits for nothing and touches no device.
"""

from collections.abc import Mapping
from typing import Protocol

from vdpad.backend.marking import Logged
from vdpad.restore.report import Report
from vdpad.restore.terms import Terms
from vdpad.state.found import Found
from vdpad.virtio.features import FeatureSet


class CountsOfCommands(Protocol):
    """How many commands of the guest's went to the device, since this process began."""

    @property
    def forwarded(self) -> int:
        """That the device has answered."""

    @property
    def acked(self) -> int:
        """Of them with OK."""

    @property
    def refused(self) -> int:
        """Of them otherwise."""


class KnownSettings(Protocol):
    """What the guest has set."""

    @property
    def counts(self) -> CountsOfCommands:
        """Of its commands."""

    @property
    def are_known(self) -> bool:
        """Whether anything is known of a guest."""

    @property
    def bases(self) -> Mapping[int, int]:
        """Where each of its queues began, or where it was left, by index."""

    def found(self) -> Found | None:
        """The state and what is missing from it; None where no guest is known."""


class ShownDevice(Protocol):
    """A back end's device, running or not."""

    @property
    def device_name(self) -> str:
        """What people call the device: its node, or what kind of software device it is."""

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped, whatever has become of it since."""

    @property
    def failure(self) -> str:
        """Why the guest was told that its device needs a reset; "" where it was not."""

    @property
    def shadows(self) -> bool:
        """Whether it runs, and the front end hands the control queue over."""

    @property
    def report(self) -> Report | None:
        """Of the last start that went on, if a state was restored then, or of one tried since."""

    @property
    def logged(self) -> Logged | None:
        """How the guest's memory is logged, if the front end tracks it."""

    @property
    def settings(self) -> KnownSettings:
        """What the guest has set, also while the device is stopped."""

    def terms(self, guest: FeatureSet) -> Terms:
        """What the device would take of a guest's state.

        Args:
            guest: the features that its driver negotiated.
        """
