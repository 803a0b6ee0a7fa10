"""Receive queues' used rings, relayed while memory is logged."""
