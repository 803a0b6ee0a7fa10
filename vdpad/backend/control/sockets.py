"""Where the control socket's API is served: by datagrams, and over connections."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import vdpad
from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.varlink import ABOUT, interface
from vdpad.service.endpoints.stream import StreamEndpoint
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.events.announcing import Announce
from vdpad.service.events.kinds import Listening
from vdpad.service.jsonrpc import JsonRpc
from vdpad.service.varlink.conversation import Varlink

CONTROL = "control"
VARLINK = "varlink"
"""The sockets by their names: FileDescriptorName= of units, and options."""


class ControlSockets:
    """Both, from `listen` to `close`."""

    def __init__(self, api: ControlApi, announce: Announce) -> None:
        """Neither listens yet."""
        self._announce = announce
        self._datagrams = UnixEndpoint(JsonRpc(api).answer, OVERLOADED, announce)
        varlink = Varlink(ABOUT, interface(api), api.refused)
        self._streams = StreamEndpoint(varlink.converse, varlink.overloaded(), announce)

    @property
    def datagrams_refused(self) -> int:
        """How many found no room in the queue."""
        return self._datagrams.datagrams_refused

    @property
    def replies_dropped(self) -> int:
        """How many datagrams nobody took."""
        return self._datagrams.replies_dropped

    async def listen(
        self, paths: Mapping[str, Path], inherited: Mapping[str, int], mode: int
    ) -> None:
        """Binds both, but those that were handed over.

        Args:
            paths: where to, by name.
            inherited: those that a service manager has bound, by name.
            mode: of what is bound.

        Raises:
            CannotListen: a socket cannot be had; `close` has the others closed.
        """
        if CONTROL in inherited:
            path = await self._datagrams.take_over(inherited[CONTROL])
        else:
            path = paths[CONTROL]
            await self._datagrams.listen(path, mode, None)
        self._announce(Listening(str(path), vdpad.__version__))
        if VARLINK in inherited:
            path = self._streams.take_over(inherited[VARLINK])
        else:
            path = paths[VARLINK]
            self._streams.listen(path, mode, None)
        self._announce(Listening(str(path), vdpad.__version__))

    async def close(self) -> None:
        """Ends once all is answered that had come by now."""
        await asyncio.gather(self._datagrams.close(), self._streams.close())
