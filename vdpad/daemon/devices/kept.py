"""One device that the daemon keeps: how far it is, and what it can be asked meanwhile.

Its phases are keeper.py's to change, and in this order only: OPENING while a thread brings it up,
UP by `mark_up`, CLOSING while a thread gives it back. Its owner has it as a Destination while it is
UP, and for no longer: that nobody commits on it while it closes is the owner's to see to.

What is up is either a device that this daemon opened, or one that an earlier daemon did and the
descriptor store kept; `Device` is what both are.
"""

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.vhost_vdpa.errors import DeviceRefused
from vdpad.restore.capabilities import Capabilities
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.layouts import AnyGeometry


class Device(Protocol):
    """A vhost-vdpa device that is up: one of ours, or one that an earlier daemon brought up."""

    @property
    def offered(self) -> FeatureSet:
        """Features that the device offers."""

    @property
    def features(self) -> FeatureSet:
        """The features negotiated with the device."""

    @property
    def config(self) -> NetConfig:
        """The config space as it was read after negotiation."""

    @property
    def geometry(self) -> AnyGeometry:
        """Where the CVQ's ring and buffers lie."""

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""

    @property
    def is_unused(self) -> bool:
        """Whether nothing was made available on its CVQ since it was reset."""

    def queue(self) -> ControlQueue:
        """The CVQ, idle.

        Raises:
            DeviceRefused: it cannot be used.
        """

    def reset(self) -> None:
        """Resets it, whoever else has copies of its node; only `close` may follow."""

    def close(self) -> None:
        """Lets go of it. May sleep for as long as its driver does."""


class Phase(Enum):
    """Where a device is on its way."""

    OPENING = auto()
    UP = auto()
    CLOSING = auto()


class KeptDevice:
    """A device and the owner that it is kept for; implements Destination while it is up."""

    def __init__(
        self,
        name: str,
        node: Path,
        owner: str,
        give_up: Callable[["KeptDevice"], Awaitable[None]],
    ) -> None:
        """
        Args:
            name: the device's, as vdpa has it.
            node: its character device.
            owner: whom it is kept for: a migration, by its name.
            give_up: gives the device back to the kernel.
        """
        self._give_up = give_up
        self.name = name
        self.node = node
        self.owner = owner
        self.phase = Phase.OPENING
        self.store_key: str | None = None
        """What the descriptor store knows it by, if it does."""
        self._device: Device | None = None

    @property
    def named(self) -> tuple[str, str, str]:
        """How events begin: the owner, the device, its node."""
        return self.owner, self.name, str(self.node)

    @property
    def device(self) -> Device:
        """The device; only once it is up."""
        assert self._device is not None
        return self._device

    @property
    def is_up(self) -> bool:
        """Whether it is between opening and closing."""
        return self.phase is Phase.UP

    @property
    def is_unused(self) -> bool:
        """Whether nothing was made available on its CVQ since it was reset."""
        return self.device.is_unused

    def mark_up(self, device: Device, store_key: str | None) -> None:
        """From now on it is up.

        Args:
            device: as it was brought up, or taken over.
            store_key: its name in the descriptor store; None where it has no copy there.
        """
        self._device = device
        self.store_key = store_key
        self.phase = Phase.UP

    @property
    def geometry(self) -> AnyGeometry:
        """The CVQ's."""
        return self.device.geometry

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return self.device.event_idx

    @property
    def capabilities(self) -> Capabilities:
        """By the config space that was read after negotiation."""
        return Capabilities.of(self.device.features, self.device.config, self.geometry)

    def identity(self, fds: list[int]) -> object:
        """The device itself; it needs no descriptors."""
        return self.node

    def open(self, fds: list[int], user: int) -> ControlQueue:
        """The CVQ, which stands ready since the bring-up."""
        try:
            return self.device.queue()
        except DeviceRefused as error:
            raise DeviceRefused(f"{self.name}: {error}") from error

    def done(self) -> None:
        """Nothing: the device is kept until it is released."""

    async def give_up(self) -> None:
        """Gives the device back."""
        await self._give_up(self)
