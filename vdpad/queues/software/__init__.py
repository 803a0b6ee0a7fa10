"""A virtio-net device of our own that serves a CVQ and lends its ring as a VMM does."""
