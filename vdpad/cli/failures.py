"""What ends vdpactl before a daemon is asked, or without one."""

from collections.abc import Sequence
from typing import Any

from vdpad.errors import VdpadError
from vdpad.methods import Refused


class Usage(VdpadError):
    """What the command line names cannot be used."""


class QmpError(VdpadError):
    """QEMU does not answer, or not as QMP has it."""


class CannotTest(Refused):
    """A device that a selftest cannot have, with the kind that the daemon's refusal would have."""


class CannotProvision(Refused):
    """A vDPA device that cannot be made or removed, with a kind as the daemon's refusals have."""


class InvalidState(Usage):
    """A file or a device whose settings are no valid state: all reasons why not."""

    def __init__(self, message: str, problems: Sequence[dict[str, Any]]) -> None:
        super().__init__(message)
        self.problems = problems
        """As docs/api.md has them: path, code, message."""
