"""The service: settings in, everything else put together, until a signal ends it."""

import asyncio
import signal
from typing import TYPE_CHECKING

import vdpad
from vdpad.daemon import journal
from vdpad.daemon.announcing import Announcer, EventLog
from vdpad.daemon.api import Api
from vdpad.daemon.endpoints import UnixEndpoint
from vdpad.daemon.events.daemon import Listening, Stopped, Stopping
from vdpad.daemon.operations import Operations, State
from vdpad.daemon.settings import Metrics, Settings
from vdpad.daemon.targets.resolve import Targets
from vdpad.daemon.textfile import Textfile

if TYPE_CHECKING:
    from vdpad.daemon.udp import UdpEndpoint


class Service:
    """A running daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.announce = announce = Announcer(EventLog())
        self._targets = Targets(settings.software, announce)
        self._operations = Operations(settings.limits, settings.replay, announce)
        self.api = Api(settings, self._operations, self._targets, announce)
        self._endpoint = UnixEndpoint(self.api.answer, announce)
        self.udp: UdpEndpoint | None = None
        """Where other hosts may ask; None where that is not configured."""
        self._textfile = self._metrics(settings.metrics)

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

                self.udp = await serve_udp(self.api.answer, settings.udp, self.announce)
        except BaseException:
            await self._endpoint.close()
            await self._targets.stop()
            raise
        self.announce(Listening(str(settings.socket), vdpad.__version__))
        if self._textfile is not None:
            self._textfile.start()

    async def stop(self) -> None:
        """Takes no more requests, and answers those under way; commits end by their deadlines."""
        self.announce(Stopping(self._operations.by_state()[State.COMMITTING]))
        endpoints = (self._endpoint, self.udp)
        await asyncio.gather(*(each.close() for each in endpoints if each is not None))
        await self._targets.stop()
        if self._textfile is not None:
            await self._textfile.stop()
        self.announce(Stopped())

    def _metrics(self, settings: Metrics) -> Textfile | None:
        if settings.textfile is None:
            return None
        # Here, since it takes 55 ms that nobody else should wait for.
        from vdpad.daemon import metrics

        sources = metrics.Sources(
            operations=self._operations.by_state,
            kept_devices=lambda: len(self._targets.kept),
            requests=lambda: self.api.answered,
            datagrams_refused=self._datagrams_refused,
            replies_dropped=self._replies_dropped,
            journal_dropped=journal.dropped,
            listener_failures=lambda: self.announce.failures,
        )
        counted = metrics.Metrics(vdpad.__version__, sources)
        self.announce.listeners.append(counted.heard)
        return Textfile(
            settings.textfile,
            settings.interval_s,
            counted.render,
            self._operations.let_commits_pass,
            self.announce,
        )

    def _datagrams_refused(self) -> dict[tuple[str, str], int]:
        refused = {("unix", "queue-full"): self._endpoint.datagrams_refused}
        if self.udp is not None:
            refused |= {("udp", reason): count for reason, count in self.udp.refused.items()}
        return refused

    def _replies_dropped(self) -> dict[str, int]:
        dropped = {"unix": self._endpoint.replies_dropped}
        if self.udp is not None:
            dropped["udp"] = self.udp.replies_dropped
        return dropped


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
