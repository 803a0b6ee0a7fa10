"""The service: settings in, everything else put together."""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import vdpad
from vdpad.daemon.address_space import check_room
from vdpad.daemon.api.api import Api
from vdpad.daemon.api.varlink import ABOUT, interface
from vdpad.daemon.devices.store import DescriptorStore
from vdpad.daemon.events.daemon import NoRecordsKept, NotReloaded, Reloaded, Stopped, Stopping
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.records.directory import NoRecords, Records, records_directory
from vdpad.daemon.settings import MetricsSettings, Settings
from vdpad.daemon.targets.resolve import Targets
from vdpad.errors import VdpadError
from vdpad.service import log
from vdpad.service.endpoints.stream import StreamEndpoint
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.events.announcing import Announce, Announcer, EventLog
from vdpad.service.events.kinds import Listening
from vdpad.service.jsonrpc import JsonRpc
from vdpad.service.systemd import notify as systemd
from vdpad.service.textfile import Textfile
from vdpad.service.users.turns import Turns
from vdpad.service.varlink.conversation import Varlink

if TYPE_CHECKING:
    from vdpad.service.endpoints.udp import UdpEndpoint

# FileDescriptorName= in systemd/vdpad.socket and vdpad-varlink.socket.
_SOCKET = "api"
_STREAM_SOCKET = "varlink"


class Service:
    """A daemon from its start to its stop, put together from its rooms."""

    def __init__(
        self,
        settings: Settings,
        inherited: Iterable[systemd.Inherited] = (),
        store: DescriptorStore | None = None,
    ) -> None:
        """
        Args:
            settings: all of them.
            inherited: what systemd handed over; where its socket is among it, none is bound.
            store: where kept devices outlive this daemon.
        """
        self._settings = settings
        self._inherited = {each.name: each.fd for each in inherited}
        self.announce = announce = Announcer(EventLog())
        self._targets = Targets(settings.software, announce, store)
        self._records = _records(settings, announce)
        self._running = running = RunningCommits()
        self._changes = Changes()
        self._operations = Operations(
            settings.limits,
            settings.replay,
            self._records,
            running,
            self._changes,
            announce,
            announce.later,
        )
        self._turns = turns = Turns()
        self.api = Api(settings, self._operations, self._targets, running, self._changes, announce)
        self._json_rpc = JsonRpc(self.api)
        self._endpoint = UnixEndpoint(self._json_rpc.answer, OVERLOADED, announce, turns)
        varlink = Varlink(ABOUT, interface(self.api), self.api.refused, turns)
        self._streams = StreamEndpoint(varlink.converse, varlink.overloaded(), announce)
        self.udp: UdpEndpoint | None = None
        """Where other hosts may ask; None where that is not configured."""
        self._textfile = self._metrics(settings.metrics)

    async def start(self) -> Path:
        """Listens, and tells where.

        Raises:
            CannotListen: a socket cannot be had.
            BadKeys: the keys for UDP cannot be had.
        """
        self._operations.recall()
        self._targets.start()
        try:
            await self._adopt()
            self._listen_for_connections()
            path = await self._listen()
            if self._settings.udp.listen is not None:
                from vdpad.daemon.between_hosts import serve_udp

                self.udp = await serve_udp(
                    self._json_rpc.answer,
                    self._settings.udp,
                    self._records.memory,
                    self.announce,
                    self._turns,
                )
        except BaseException:
            await asyncio.gather(self._endpoint.close(), self._streams.close())
            await self._targets.stop()
            self._records.close()
            raise
        self.announce(Listening(str(path), vdpad.__version__))
        if self._textfile is not None:
            self._textfile.start()
        return path

    async def stop(self) -> None:
        """Takes on nothing more, and answers what was asked; commits end by their deadlines."""
        self.announce(Stopping(self._operations.by_state()[State.COMMITTING]))
        await self._operations.stop()
        self._changes.end()
        endpoints = (self._endpoint, self._streams, self.udp)
        await asyncio.gather(*(each.close() for each in endpoints if each is not None))
        await self._targets.stop()
        self.announce.flush()
        if self._textfile is not None:
            await self._textfile.stop()
        self._records.close()
        self.announce(Stopped())

    def reload(self, load: Callable[[], Settings]) -> None:
        """Reads the configuration again, and takes what can be taken while running.

        Whatever is wrong with it, the daemon goes on as before and says so.
        """
        try:
            settings, taken, rest = self._settings.taking(load())
            check_room(settings.limits)
            keys = self._reload_keys()
        except VdpadError as error:
            self.announce(NotReloaded(str(error)))
            return
        self._settings = settings
        self.api.use(settings)
        self._operations.use(settings.limits, settings.replay)
        self.announce(Reloaded((*sorted(taken), *keys), tuple(sorted(rest))))

    def _reload_keys(self) -> tuple[str, ...]:
        if self.udp is None or self._settings.udp.key_file is None:
            return ()
        from vdpad.wire.keys import key_file, load_keys

        self.udp.use_keys(load_keys(key_file(self._settings.udp.key_file)))
        return ("udp.key_file",)

    async def _adopt(self) -> None:
        """Keeps on what an earlier daemon kept, but for devices that have nothing of any guest."""
        keeper = self._targets.keeper
        untouched = [
            each
            for each in await keeper.adopt(self._inherited.items())
            if each.is_unused and not self._operations.was_restored(each.owner)
        ]
        await keeper.close_all(untouched)

    def _metrics(self, settings: MetricsSettings) -> Textfile | None:
        if settings.textfile is None:
            return None
        # Here, since it takes 55 ms that nobody else should wait for.
        from vdpad.daemon import metrics

        sources = metrics.Sources(
            operations=self._operations.by_state,
            kept_devices=lambda: len(self._targets.keeper),
            requests=lambda: self.api.answered,
            datagrams_refused=self._datagrams_refused,
            replies_dropped=self._replies_dropped,
            journal_dropped=log.dropped,
            listener_failures=lambda: self.announce.failures,
        )
        counted = metrics.Metrics(vdpad.__version__, sources)
        self.announce.listeners.append(counted.heard)
        return Textfile(
            settings.textfile,
            settings.interval_s,
            counted.render,
            self._running.until_idle,
            self.announce,
        )

    def _datagrams_refused(self) -> dict[tuple[str, str], int]:
        refused = {("unix", "queue-full"): self._endpoint.datagrams_refused}
        if self.udp is not None:
            from vdpad.wire.sealing import Reason

            refused["udp", "queue-full"] = self.udp.datagrams_refused
            # Each, as whoever watches a counter does not see one that begins above 0.
            counts = self.udp.refused
            refused |= {("udp", reason): counts[reason] for reason in Reason}
        return refused

    def _replies_dropped(self) -> dict[str, int]:
        dropped = {"unix": self._endpoint.replies_dropped}
        if self.udp is not None:
            dropped["udp"] = self.udp.replies_dropped
        return dropped

    def _listen_for_connections(self) -> None:
        settings = self._settings
        path = settings.stream_socket
        if _STREAM_SOCKET in self._inherited:
            path = self._streams.take_over(self._inherited[_STREAM_SOCKET])
        elif path is None or _SOCKET in self._inherited:
            return
        else:
            self._streams.listen(path, int(settings.socket_mode, 8), settings.socket_group)
        self.announce(Listening(str(path), vdpad.__version__))

    async def _listen(self) -> Path:
        settings = self._settings
        if _SOCKET in self._inherited:
            return await self._endpoint.take_over(self._inherited[_SOCKET])
        await self._endpoint.listen(
            settings.socket, int(settings.socket_mode, 8), settings.socket_group
        )
        return settings.socket


def _records(settings: Settings, announce: Announce) -> Records:
    """The records; a daemon that cannot keep any works all the same, and says so."""
    directory = records_directory(settings.records.directory, os.environ)
    try:
        return Records(directory, announce)
    except NoRecords as error:
        announce(NoRecordsKept(str(error)))
        return Records(None, announce)
