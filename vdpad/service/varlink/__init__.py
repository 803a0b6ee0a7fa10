"""Varlink, served: a connection's conversation, and the interfaces that it may be about."""
