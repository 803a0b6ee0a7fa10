"""The device of our own."""
