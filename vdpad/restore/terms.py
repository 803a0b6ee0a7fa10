"""What a plan and a program for a device go by."""

from dataclasses import dataclass
from typing import Protocol, Self

from vdpad.restore.capabilities import Capabilities
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import RingGeometry


class Terms(Protocol):
    """Of a device, whatever its kind."""

    @property
    def geometry(self) -> RingGeometry:
        """A checked one, of the CVQ's ring, wherever it will lie."""

    @property
    def capabilities(self) -> Capabilities:
        """What the device takes."""

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX is negotiated."""


@dataclass(frozen=True, slots=True)
class DeviceTerms:
    """Implements Terms, for a device of which the config space is known."""

    geometry: RingGeometry
    capabilities: Capabilities
    event_idx: bool

    @classmethod
    def of(cls, features: FeatureSet, config: NetConfig, geometry: RingGeometry) -> Self:
        """
        Args:
            features: those negotiated.
            config: the device's config space.
            geometry: of its CVQ's ring.
        """
        capabilities = Capabilities.of(features, config, geometry)
        return cls(geometry, capabilities, Feature.RING_EVENT_IDX in features)
