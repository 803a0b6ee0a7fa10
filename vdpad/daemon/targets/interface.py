"""What the daemon asks of a target, whatever its kind.

    Target ──look──────▶ Terms        for check: what the device takes, without touching it
       └──bring_up────▶ Destination  for prepare: the same, and a control queue for the commit

A destination that was brought up belongs to one operation, until that is done with it (`done`), or
will never commit (`give_up`).
"""

from typing import Protocol

from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.terms import Terms
from vdpad.virtio.features import FeatureSet


class Destination(Terms, Protocol):
    """A device that is ready for a commit."""

    @property
    def name(self) -> str:
        """The device's, as operators know it; "" where vdpad does not."""

    def identity(self, fds: list[int]) -> object:
        """What no two commits may have at the same time.

        Raises:
            BadLend: the descriptors are not what the target needs.
        """

    def open(self, fds: list[int], user: int) -> ControlQueue:
        """The control queue, idle. The descriptors stay the caller's.

        Args:
            fds: as they came.
            user: who sent them: a uid, or ANOTHER_HOST.

        Raises:
            BadLend: the descriptors or the ring cannot be used.
            VdpadError: the device cannot be used.
        """

    def done(self) -> None:
        """A replay has ended and the queue is closed again."""

    async def give_up(self) -> None:
        """There will be no commit. On cancellation the device is let go of all the same."""


class Target(Protocol):
    """A destination by its name; nothing has been looked up or touched yet."""

    async def look(self, guest: FeatureSet) -> Terms:
        """What the device takes for a guest with these features. Touches no device.

        Raises:
            VdpadError: there is none, or nobody knows.
        """

    async def bring_up(self, guest: FeatureSet, migration: str) -> Destination:
        """The device, made ready for a guest with these features.

        Raises:
            VdpadError: it cannot be had.
        """
