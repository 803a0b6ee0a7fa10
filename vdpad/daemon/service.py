"""The service: settings in, everything else put together, until a signal ends it."""

import asyncio
import signal

import structlog

import vdpad
from vdpad.daemon.api import Api
from vdpad.daemon.endpoints import UnixEndpoint
from vdpad.daemon.operations import Operations
from vdpad.daemon.settings import Settings
from vdpad.daemon.targets.resolve import Targets

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.service")


class Service:
    """A running daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._targets = Targets(settings.software)
        self._operations = Operations(settings.limits, settings.replay)
        self.api = Api(settings, self._operations, self._targets)
        self._endpoint = UnixEndpoint(self.api.answer)

    async def start(self) -> None:
        """Listens.

        Raises:
            CannotListen: the socket cannot be had.
        """
        self._targets.start()
        settings = self._settings
        try:
            await self._endpoint.listen(
                settings.socket, int(settings.socket_mode, 8), settings.socket_group
            )
        except BaseException:
            await self._targets.stop()
            raise
        log.info("listening", socket=str(settings.socket), version=vdpad.__version__)

    async def stop(self) -> None:
        """Takes no more requests, and answers those under way; commits end by their deadlines."""
        await self._endpoint.close()
        await self._targets.stop()
        log.info("stopped")


async def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        CannotListen: the socket cannot be had.
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
