# How QMP works
#
# One JSON object a line. QEMU greets; the client answers with `qmp_capabilities`; from then on
# every command gets one `return` or one `error`, in order, and `event` objects may stand anywhere
# between. Commands here are serialized by a lock, so the object that is no event is the answer.
#
# `query-rx-filter` is the judge of the receive filter. Its `broadcast-allowed` shows the device's
# *nobcast* (seen on 7.2, 10.0 and 11.1), which is the opposite of its name; here it is called
# what it is. Its tables come in reverse; here they are sorted.
"""An asyncio QMP client, and the receive filter as QEMU shows it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE_LIMIT = 4 * 1024 * 1024
EVENTS_KEPT = 1000
MIGRATION_POLL_SECONDS = 0.005


class QmpError(Exception):
    """QEMU answered a command with an error, or a migration failed."""


@dataclass(frozen=True)
class RxFilter:
    """One network card's receive filter, from QMP's query-rx-filter."""

    name: str
    promiscuous: bool
    main_mac: str
    unicast: str
    """"normal", "none" (NOUNI) or "all" (ALLUNI)."""
    multicast: str
    """"normal", "none" (NOMULTI) or "all" (ALLMULTI)."""
    vlan: str
    """"normal", "none" (the table is empty) or "all" (CTRL_VLAN is not negotiated)."""
    nobcast: bool
    unicast_overflow: bool
    multicast_overflow: bool
    unicast_table: tuple[str, ...]
    multicast_table: tuple[str, ...]
    vlan_table: tuple[int, ...]


class Qmp:
    """One QMP connection. Methods raise QmpError, or ConnectionError where QEMU is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        """The latest events, oldest first, as they were found between answers."""

    @classmethod
    async def over(cls, connection: socket.socket) -> Qmp:
        """Greet over a connected stream socket, which belongs to the returned object."""
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_LIMIT)
        qmp = cls(reader, writer)
        try:
            await qmp._receive()
            await qmp.execute("qmp_capabilities")
        except BaseException:
            await qmp.close()
            raise
        return qmp

    async def close(self) -> None:
        """Close the connection; QEMU runs on."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its `return` value. An underscore in a key is a hyphen.

        After a cancellation in mid-command the connection is out of step: close it.
        """
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        async with self._lock:
            self._writer.write(json.dumps({"execute": command, "arguments": named}).encode())
            answer = await self._receive()
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    async def query_rx_filter(self) -> RxFilter:
        """Return the receive filter of the machine's only network card that has one."""
        (found,) = await self.execute("query-rx-filter")
        return rx_filter(found)

    async def migrate_to_socket(self, path: Path) -> None:
        """Migrate to a listening AF_UNIX socket, and return when the migration has completed.

        A machine started with -S is not started by it. Raises QmpError where it fails; how long it
        may take is the caller's to say.
        """
        await self.migrate(f"unix:{path}")

    async def migrate(self, uri: str) -> None:
        """Migrate to what this names, as migrate_to_socket does."""
        await self.execute("migrate", uri=uri)
        status = ""
        while status != "completed":
            await asyncio.sleep(MIGRATION_POLL_SECONDS)
            status = await self._migration_status()

    async def _migration_status(self) -> str:
        progress = await self.execute("query-migrate")
        status = str(progress.get("status"))
        if status in ("failed", "cancelled"):
            raise QmpError(f"migrate: {progress}")
        return status

    async def _receive(self) -> dict[str, Any]:
        while True:
            line = await self._reader.readline()
            if not line:
                raise ConnectionError("QMP: QEMU closed the connection")
            message: dict[str, Any] = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)


def rx_filter(found: dict[str, Any]) -> RxFilter:
    """Read one element of query-rx-filter's answer, with its inversion put right."""
    return RxFilter(
        name=found["name"],
        promiscuous=found["promiscuous"],
        main_mac=found["main-mac"],
        unicast=found["unicast"],
        multicast=found["multicast"],
        vlan=found["vlan"],
        nobcast=found["broadcast-allowed"],
        unicast_overflow=found["unicast-overflow"],
        multicast_overflow=found["multicast-overflow"],
        unicast_table=tuple(sorted(found["unicast-table"])),
        multicast_table=tuple(sorted(found["multicast-table"])),
        vlan_table=tuple(sorted(found["vlan-table"])),
    )
