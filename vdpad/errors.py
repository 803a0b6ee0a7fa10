"""The root of vdpad's errors.

Every error that vdpad raises on purpose is a VdpadError. Its message says what was expected, what
came, and what to do; the room that knows the fault defines the subclass. The few that Python's own
protocols or pydantic's ask for by type, and why, are in tests/test_errors.py, which holds this.
"""

__all__ = ["VdpadError"]


class VdpadError(Exception):
    """Anything that vdpad raises on purpose."""


class NotWritten(VdpadError, OSError):
    """Bytes that the system did not take whole; also an OSError, for who handles the system's."""


def why(error: Exception) -> str:
    """What the system said, in its words; where Python itself refused, in Python's."""
    return getattr(error, "strerror", None) or str(error)
