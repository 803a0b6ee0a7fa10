"""A QMP monitor that stays connected: what QEMU shows of its cards' filters, and when it changes.

How it works. QEMU's own library keeps the connection, and reads it on a task. QEMU tells by
NIC_RX_FILTER_CHANGED that a filter is another one, and then no more until it is queried. So an
event says nothing but that a query is due, and so does the end of the connection, which the next
query tells. Events are kept by nobody: the library would keep all of them.

Whoever answers may be no QEMU. So a line has a length, and what stands in it a number, before it
is read; one message is read a turn of the event loop; and everything that is waited for has an end.
Errors of the library's become `MonitorLost`, which is then final.

Source: QEMU docs/interop/qmp-spec.rst, qapi/net.json.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from qemu.qmp import ConnectError, ExecuteError, Message, QMPClient, Runstate

from vdpad.errors import VdpadError, why
from vdpad.state.formats.rx_filter import RxFilter, rx_filters
from vdpad.wire import strict_json
from vdpad.wire.strict_json import Most

_CHANGED = "NIC_RX_FILTER_CHANGED"

# A card's full VLAN and MAC tables take 30 KiB. Stops who is no QEMU from filling memory.
_MAX_LINE = 1 << 20
_MOST = Most(values=1 << 16, containers=1 << 10, names=1 << 13)

# What may wait to be read by QEMU, in bytes: queries of some hundred bytes each, one at a time.
_MAX_UNREAD = 1 << 14

# In seconds. QEMU answers nobody while it waits for us to map its guest's memory.
_PATIENCE = 10.0

_ONE_CLIENT = "QEMU serves one client of a monitor at a time, give this one a monitor of its own"

# What goes wrong is told by who follows, once; the library would tell it too, as often as it is.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class MonitorLost(VdpadError):
    """QEMU's monitor does not tell what it is asked, or is not there."""


class _Client(QMPClient):
    """QEMU's client, with bounds."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(readbuflen=_MAX_LINE)
        self._changed = changed
        self.events.event_filter = self._note

    def _note(self, event: Message) -> bool:
        if event.get("event") == _CHANGED:
            self._changed()
        return False

    async def _do_recv(self) -> Message:
        # Others have their turn, also where messages never end.
        await asyncio.sleep(0)
        line = await self._readline()
        strict_json.refuse_more(line, _MOST)
        return Message(line, eager=True)

    def _do_send(self, msg: Message) -> None:
        super()._do_send(msg)
        assert self._writer is not None
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            # Closing would wait until all of it is read.
            self._writer.transport.abort()
            raise MonitorLost("expected queries to be read, they are not")


class Monitor:
    """A connection; see `connected`. One query at a time."""

    def __init__(self, path: Path, client: _Client) -> None:
        self._path = path
        self._client = client

    async def rx_filters(self, card: str | None = None) -> list[RxFilter]:
        """The filters of all cards that have one, or of this one.

        Raises:
            MonitorLost: it does not tell.
            FormatError: what it tells is none.
        """
        arguments: dict[str, object] = {} if card is None else {"name": card}
        return rx_filters(await self._execute("query-rx-filter", arguments))

    async def netdev_of(self, card: str) -> str | None:
        """The netdev of a card that has an id; None where QEMU does not tell.

        Raises:
            MonitorLost: it is not there any more.
        """
        arguments: dict[str, object] = {
            "path": f"/machine/peripheral/{card}",
            "property": "netdev",
        }
        try:
            netdev = await self._execute("qom-get", arguments)
        except _Refused:
            return None
        return netdev if isinstance(netdev, str) else None

    async def _execute(self, command: str, arguments: dict[str, object]) -> object:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise _Refused(f"{self._path}: {command}: {error}") from error
        except TimeoutError as error:
            raise MonitorLost(f"{self._path}: {command}: no answer in {_PATIENCE:g} s") from error
        except Exception as error:
            raise MonitorLost(f"{self._path}: {await self._end(error)}") from error

    async def _end(self, error: Exception) -> str:
        """What has ended the connection, where this error came of that."""
        try:
            if self._client.runstate is Runstate.DISCONNECTING:
                await self._client.disconnect()
        except EOFError:
            return "QEMU closed the connection"
        except Exception as cause:
            return f"this is not QMP: {_told(cause)}"
        return _told(error)


class _Refused(MonitorLost):
    """QEMU's error to a command."""


@asynccontextmanager
async def connected(path: Path, changed: Callable[[], None]) -> AsyncIterator[Monitor]:
    """QEMU's monitor, for the time of the context.

    Args:
        path: its socket, as in -qmp unix:PATH,server=on,wait=off.
        changed: called where a query is due; it does not raise.

    Raises:
        MonitorLost: nobody is there who speaks QMP.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    client = _Client(changed)
    try:
        await _connect(client, connection, path)
        watch = asyncio.create_task(_tell_end(client, changed), name="monitor")
        try:
            yield Monitor(path, client)
        finally:
            watch.cancel()
    finally:
        # So nothing waits for who does not read.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        with suppress(Exception):
            await client.disconnect()
        connection.close()


async def _connect(client: _Client, connection: socket.socket, path: Path) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await asyncio.get_running_loop().sock_connect(connection, str(path))
            await client.connect(connection)
    except TimeoutError as error:
        raise MonitorLost(f"{path}: no answer in {_PATIENCE:g} s; {_ONE_CLIENT}") from error
    except OSError as error:
        raise MonitorLost(f"{path}: expected QEMU's QMP socket: {why(error)}") from error
    except ConnectError as error:
        raise MonitorLost(f"{path}: this is not QMP: {_told(error.exc)}") from error


async def _tell_end(client: _Client, changed: Callable[[], None]) -> None:
    while client.runstate is Runstate.RUNNING:
        await client.runstate_changed()
    changed()


def _told(error: Exception) -> str:
    """An error in some words: the library's may repeat what it was given."""
    first = str(error).partition("\n")[0][:200]
    return first or type(error).__name__
