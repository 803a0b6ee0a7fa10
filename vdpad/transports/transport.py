"""A transport: what a client knows of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Transport(Protocol):
    """A socket that is connected. One request at a time is under way on it."""

    async def ask(self, method: str, params: Mapping[str, Any], fds: Sequence[int]) -> Any:
        """The result of a request. One on which this was cancelled, or failed, is of no use.

        Raises:
            Refused: the daemon answered with an error.
            Unreachable: it did not answer as a vdpad does.
            OSError: it could not be asked.
        """

    def close(self) -> None:
        """Closes the socket. Nothing may be asked afterwards."""
