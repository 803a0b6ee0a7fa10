"""vdpad: restores virtio-net control-virtqueue state on vDPA devices after a live migration.

Its rooms, which of them may import which, and what of it is public: docs/architecture.md.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
