"""The root of vdpad's errors.

Every error that vdpad raises on purpose is a VdpadError. Its message says what was expected, what
came, and what to do; the room that knows the fault defines the subclass. The few that Python's own
protocols or pydantic's ask for by type, and why, are in tests/test_errors.py, which holds this.
"""

__all__ = ["VdpadError"]


LONGEST_SOCKET_PATH = 107
"""Bytes. Linux, unix(7): sun_path has 108, the last of which is 0."""

_SOCKET_PATH = f"expected a socket's path of at most {LONGEST_SOCKET_PATH} bytes"
_SHORTER = "it is shorter from a folder nearer to it, or by a symbolic link"

# What Python says names neither the bound nor a way out.
_IN_OUR_WORDS = {"AF_UNIX path too long": f"{_SOCKET_PATH}; {_SHORTER}"}


class VdpadError(Exception):
    """Anything that vdpad raises on purpose."""


class NotWritten(VdpadError, OSError):
    """Bytes that the system did not take whole; also an OSError, for who handles the system's."""


def long_socket_path(length: int) -> str:
    """What is wrong with a socket's path of so many bytes, in the words of `why`."""
    return f"{_SOCKET_PATH}, got {length}; {_SHORTER}"


def why(error: Exception) -> str:
    """What the system said, in its words; where Python itself refused, in Python's."""
    said = getattr(error, "strerror", None) or str(error)
    return _IN_OUR_WORDS.get(said, said)
