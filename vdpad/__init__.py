"""vdpad: restores virtio-net control-virtqueue state on vDPA devices after a live migration.

The rooms, in the order in which they may import each other: `virtio` (what the specification
says), `state` (what is moved), `restore` (how it is put back), `queues` (how a control queue is
reached), `daemon` (the service), `client` and `cli` (its users).
"""

__version__ = "0.1.0"
