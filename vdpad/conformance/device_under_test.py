"""The device that is tested, whatever stands behind it: what it is, and how it is brought up.

Bringing it up resets it. Each case of the suite has it fresh, and nobody else's meanwhile.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import ControlQueue
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.rings import RingGeometry


class StillInFlight(VdpadError):
    """The device has chains that it never returned, so its ring takes no others."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which device it is, and whose."""

    device: str
    """The name that it was asked for by."""
    node: str | None = None
    """Under /dev; None for one that has none."""
    parent_driver: str | None = None
    """Of the device that the vDPA device was made on."""
    mgmtdev: str | None = None
    """The management device that it was made on."""


class DeviceUp(Protocol):
    """A device at DRIVER_OK, just reset, with an idle control queue."""

    @property
    def offered(self) -> FeatureSet:
        """The features that it offers."""

    @property
    def features(self) -> FeatureSet:
        """Those that were negotiated."""

    @property
    def config(self) -> NetConfig:
        """Its config space when it came up."""

    @property
    def geometry(self) -> RingGeometry:
        """Where its control queue's ring lies."""

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""

    def queue(self) -> ControlQueue:
        """The control queue, for one user at a time.

        Raises:
            StillInFlight: an earlier user's chains never came back.
        """

    async def config_now(self) -> NetConfig:
        """Its config space as it is by now."""


class DeviceUnderTest(Protocol):
    """A device that nobody else uses."""

    @property
    def origin(self) -> Origin:
        """Which one it is."""

    def up(self) -> AbstractAsyncContextManager[DeviceUp]:
        """Resets it and brings it up; at the end it is reset, or given back."""
