"""vdpad: restores virtio-net control-virtqueue state on vDPA devices after a live migration.

Its rooms, and which of them may import which: docs/architecture.md.
"""

__version__ = "0.1.0"
