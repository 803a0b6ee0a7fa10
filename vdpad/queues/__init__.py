"""How a control queue is reached. Knows virtio, and nothing of states or of the daemon."""
