"""A real QEMU virtio-net device without a guest, and the judges of its state.

Knows nothing of vdpad, which is what it judges.
"""
