"""QEMU 10 restoring the same state with its shadow virtqueue: what vdpad is held against."""
