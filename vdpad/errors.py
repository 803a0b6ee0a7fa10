"""The root of vdpad's errors.

Every error that vdpad raises on purpose is a VdpadError. Its message says what was expected, what
came, and what to do; the room that knows the fault defines the subclass. The few that Python's own
protocols or pydantic's ask for by type, and why, are in tests/test_errors.py, which holds this.
"""

__all__ = ["VdpadError"]


# What Python says names neither the bound nor a way out. Linux, unix(7): sun_path has 108 bytes.
_IN_OUR_WORDS = {
    "AF_UNIX path too long": "expected a socket's path of at most 107 bytes; it is shorter from a "
    "folder nearer to it, or by a symbolic link"
}


class VdpadError(Exception):
    """Anything that vdpad raises on purpose."""


class NotWritten(VdpadError, OSError):
    """Bytes that the system did not take whole; also an OSError, for who handles the system's."""


def why(error: Exception) -> str:
    """What the system said, in its words; where Python itself refused, in Python's."""
    said = getattr(error, "strerror", None) or str(error)
    return _IN_OUR_WORDS.get(said, said)
