"""Sessions that nobody would hold, against the real session and channel."""
