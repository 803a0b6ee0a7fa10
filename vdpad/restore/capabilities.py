"""What a destination device takes: what a plan is held against."""

from dataclasses import dataclass
from typing import Self

from vdpad.restore.program import largest_command
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.framing import is_legacy
from vdpad.virtio.rings import RingGeometry


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination device takes."""

    features: FeatureSet
    """Those negotiated with it."""
    largest_command: int
    """Bytes of one command that the queue's buffers take."""
    max_queue_pairs: int = 1
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: frozenset[int] = frozenset()
    supported_tunnel_types: frozenset[int] = frozenset()

    @property
    def is_legacy(self) -> bool:
        """Whether commands must be framed as a legacy device wants them."""
        return is_legacy(self.features)

    @classmethod
    def of(cls, features: FeatureSet, config: NetConfig, geometry: RingGeometry) -> Self:
        """
        Args:
            features: those negotiated.
            config: the device's config space.
            geometry: of its CVQ's ring.
        """
        multiqueue = features & {Feature.MQ, Feature.RSS}
        return cls(
            features=features,
            largest_command=largest_command(geometry),
            max_queue_pairs=config.max_virtqueue_pairs if multiqueue else 1,
            rss_max_key_size=config.rss_max_key_size,
            rss_max_indirection_table_length=config.rss_max_indirection_table_length,
            supported_hash_types=config.supported_hash_types,
            supported_tunnel_types=config.supported_tunnel_types,
        )
