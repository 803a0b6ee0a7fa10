"""The back end's control socket: what it tells of its device and its guest, and of whom."""
