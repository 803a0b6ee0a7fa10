"""Whether a device's control virtqueue does what the virtio specification says."""
