"""The service: settings in, everything else put together, until a signal ends it."""

import asyncio
import signal
from typing import TYPE_CHECKING

import structlog

import vdpad
from vdpad.daemon.api import Api
from vdpad.daemon.endpoints import UnixEndpoint
from vdpad.daemon.operations import Operations
from vdpad.daemon.settings import Settings
from vdpad.daemon.targets.resolve import Targets

if TYPE_CHECKING:
    from vdpad.daemon.udp import UdpEndpoint

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.service")


class Service:
    """A running daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._targets = Targets(settings.software)
        self._operations = Operations(settings.limits, settings.replay)
        self.api = Api(settings, self._operations, self._targets)
        self._endpoint = UnixEndpoint(self.api.answer)
        self.udp: UdpEndpoint | None = None
        """Where other hosts may ask; None where that is not configured."""

    async def start(self) -> None:
        """Listens.

        Raises:
            CannotListen: a socket cannot be had.
            BadKeys: the keys for UDP cannot be had.
        """
        self._targets.start()
        settings = self._settings
        try:
            await self._endpoint.listen(
                settings.socket, int(settings.socket_mode, 8), settings.socket_group
            )
            if settings.udp.listen is not None:
                # The cryptography takes time and memory, which a host without UDP need not spend.
                from vdpad.daemon.udp import serve_udp

                self.udp = await serve_udp(self.api.answer, settings.udp)
        except BaseException:
            await self._endpoint.close()
            await self._targets.stop()
            raise
        log.info("listening", socket=str(settings.socket), version=vdpad.__version__)

    async def stop(self) -> None:
        """Takes no more requests, and answers those under way; commits end by their deadlines."""
        endpoints = (self._endpoint, self.udp)
        await asyncio.gather(*(each.close() for each in endpoints if each is not None))
        await self._targets.stop()
        log.info("stopped")


async def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        CannotListen: a socket cannot be had.
        BadKeys: the keys for UDP cannot be had.
    """
    service = Service(settings)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, ended.set)
    await service.start()
    try:
        await ended.wait()
    finally:
        await service.stop()
