"""Asking by datagrams: JSON-RPC, one datagram a request and one its reply.

A reply that comes too late for its request is recognised by its id and dropped.
"""

import contextlib
import itertools
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdpad.methods import Unreachable, result_of, too_long
from vdpad.wire import readiness
from vdpad.wire.datagrams import MAX_DATAGRAM

_REPLY_ROOM = 2 * MAX_DATAGRAM


class OverDatagrams:
    """A datagram socket with an address of the kernel's choice."""

    def __init__(self, path: Path) -> None:
        """Connects.

        Raises:
            OSError, ValueError: nobody takes datagrams there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # Replies to an earlier process with the same address must not pass for ours.
        self._ids = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count(1))
        try:
            self._socket.bind("")  # without an address nothing is answered
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    async def ask(self, method: str, params: Mapping[str, Any], fds: Sequence[int]) -> Any:
        """See Transport. An error without an id passes for any request's."""
        request_id = next(self._ids)
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        text = json.dumps(request, separators=(",", ":")).encode()
        if len(text) > MAX_DATAGRAM:
            raise too_long(len(text), MAX_DATAGRAM)
        await self._send(text, fds)
        return result_of(await self._reply_to(request_id))

    def close(self) -> None:
        """Closes the socket. Nothing may be asked afterwards."""
        self._socket.close()

    async def _send(self, data: bytes, fds: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [data], fds)
            except BlockingIOError:
                # The daemon's receive queue is full for the moment.
                await readiness.writable(self._socket)
            else:
                return

    async def _reply_to(self, request_id: str) -> dict[str, Any]:
        while True:
            try:
                data = self._socket.recv(_REPLY_ROOM)
            except BlockingIOError:
                await readiness.readable(self._socket)
                continue
            reply = _reply(data)
            # A request that the daemon could not read is answered without an id.
            if reply.get("id") in (request_id, None):
                return reply


def _reply(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        reply = json.loads(data)
        if isinstance(reply, dict) and ("result" in reply or "error" in reply):
            return reply
    raise Unreachable("expected a JSON-RPC reply, got something else; is this vdpad's socket?")
