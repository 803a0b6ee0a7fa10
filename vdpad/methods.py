"""The API's methods as a client calls them, whatever way a request takes.

Results are the API's JSON objects as dicts: docs/api.md is their contract.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from vdpad.errors import VdpadError

# Above any deadline that a caller leaves to the daemon, in seconds.
DEFAULT_TIMEOUT = 30.0


class Unreachable(VdpadError):
    """No daemon took the request, or none replied in time. What became of it `status` tells."""


class CannotSend(VdpadError):
    """A request that does not go this way. Nothing was sent."""


class Refused(VdpadError):
    """The daemon's error reply, or what it would say to a request that is too long to be sent."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        """`error.data` of the reply."""

    @property
    def kind(self) -> str:
        """The error's name, such as "incompatible"; see docs/api.md."""
        return str(self.data.get("kind", "unknown"))


class Methods(ABC):
    """All methods, over a `call`."""

    async def info(self) -> dict[str, Any]:
        """The daemon's name, version, limits, formats and targets."""
        return await self._object("info")

    async def check(self, state: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a target takes a state, and what would be sent. Touches no device."""
        return await self._object("check", state=state, target=target)

    async def prepare(
        self,
        migration: str,
        state: Mapping[str, Any],
        target: Mapping[str, Any],
        *,
        committer: int | None = None,
        deadline_ms: int | None = None,
    ) -> dict[str, Any]:
        """Checks and encodes a state for a target, so that commit has next to nothing to do.

        Args:
            migration: by which it is known.
            state: as the API has it.
            target: likewise.
            committer: the uid that may commit it too, where a VMM has another than the caller.
            deadline_ms: of no effect.
        """
        return await self._object(
            "prepare",
            migration=migration,
            state=state,
            target=target,
            **_given(committer=committer, deadline_ms=deadline_ms),
        )

    async def commit(
        self, migration: str, *, fds: Sequence[int] = (), deadline_ms: int | None = None
    ) -> dict[str, Any]:
        """Replays what was prepared and gives its report.

        Cancellation leaves the commit running in the daemon.

        Args:
            migration: as it was prepared.
            fds: for a lent target its memory, kick and call; they stay the caller's.
            deadline_ms: for the whole replay.
        """
        return await self._object(
            "commit", fds, migration=migration, **_given(deadline_ms=deadline_ms)
        )

    async def restore(
        self,
        migration: str,
        state: Mapping[str, Any],
        target: Mapping[str, Any],
        *,
        fds: Sequence[int] = (),
        deadline_ms: int | None = None,
    ) -> dict[str, Any]:
        """prepare and commit in one; see there."""
        return await self._object(
            "restore",
            fds,
            migration=migration,
            state=state,
            target=target,
            **_given(deadline_ms=deadline_ms),
        )

    async def status(self, migration: str) -> dict[str, Any]:
        """What became of a migration."""
        return await self._object("status", migration=migration)

    async def operations(
        self,
        *,
        states: Sequence[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> dict[str, Any]:
        """What became of the operations that the daemon remembers, newest first.

        Args:
            states: in which they are; None for all.
            limit: how many are told at most, 1000 at most; fewer where a reply has no room.
            after: the migration that they come behind in this order; None begins with the newest.

        Returns:
            `operations`, each without its report, and `total`, which counts all in these states.
        """
        return await self._object("status", **_given(states=states, limit=limit, after=after))

    async def devices(self) -> list[dict[str, Any]]:
        """The vDPA devices of the daemon's host."""
        return await self._list("devices")

    async def release(self, device: str) -> None:
        """Has the daemon close a vhost-vdpa device that it keeps, which resets the device.

        Args:
            device: its vdpa name, or its node's path.
        """
        await self._object("release", device=device)

    async def cancel(self, migration: str) -> dict[str, Any]:
        """Cancels what was prepared."""
        return await self._object("cancel", migration=migration)

    @abstractmethod
    async def call(self, method: str, fds: Sequence[int] = (), **params: Any) -> Any:
        """Any method by its name.

        Cancellation gives up the reply, not what was asked for.

        Raises:
            Refused: the daemon answered with an error.
            Unreachable: it could not be asked, or did not answer in time.
            CannotSend: what is asked for does not go this way.
        """

    async def _list(self, method: str) -> list[dict[str, Any]]:
        result: Any = await self.call(method)
        if not isinstance(result, list):
            raise Unreachable(f"expected a list as the reply, got {type(result).__name__}")
        return result

    async def _object(
        self, method: str, fds: Sequence[int] = (), /, **params: Any
    ) -> dict[str, Any]:
        result: Any = await self.call(method, fds, **params)
        if not isinstance(result, dict):
            raise Unreachable(f"expected an object as the reply, got {type(result).__name__}")
        return result


def result_of(reply: Mapping[str, Any]) -> Any:
    """What a reply holds.

    Raises:
        Refused: an error.
        Unreachable: no error that JSON-RPC knows.
    """
    if "error" in reply:
        raise _refusal(reply["error"])
    return reply["result"]


def too_long(size: int, most: int) -> Refused:
    """What the daemon says to a request of so many bytes; the kernel may not even take it there."""
    message = f"expected a request of at most {most} bytes, got {size}"
    return Refused(-32600, message, {"kind": "invalid-request"})


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _refusal(error: Any) -> VdpadError:
    match error:
        case {"code": int(code), "message": str(message), "data": dict(data)}:
            return Refused(code, message, data)
        case {"code": int(code), "message": str(message), **rest} if "data" not in rest:
            return Refused(code, message, {})
    return Unreachable("expected a JSON-RPC error, got something else; is this vdpad's socket?")
