"""The daemon over its socket: every method, every error, every kind of sender."""
