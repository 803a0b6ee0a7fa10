"""What the virtio specification says: features, config, CVQ commands, the split ring. No I/O."""
