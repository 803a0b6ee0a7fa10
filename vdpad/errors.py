"""The root of vdpad's errors.

Every error that vdpad raises on purpose is a VdpadError. Its message says what was expected, what
came, and what to do; the room that knows the fault defines the subclass.
"""


class VdpadError(Exception):
    """Anything that vdpad raises on purpose."""


def why(error: Exception) -> str:
    """What the system said, in its words; where Python itself refused, in Python's."""
    return getattr(error, "strerror", None) or str(error)
