"""Datagrams to a daemon: each has its reply, a result or an error that the page knows."""

import asyncio
import json
import tempfile
from collections.abc import Callable

import structlog

from tests.daemon.support import CODES, MAX_DATAGRAM
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.service.jsonrpc import JsonRpc
from vdpad.wire.datagrams import Peer

# So that commits and what follows them are reached soon, and old operations go.
_LIMITS = {"operations_at_once": 4, "operations_kept": 8}


def _answering() -> Callable[[bytes], bytes | None]:
    """A daemon in this process, without its sockets."""
    structlog.configure(processors=[_dropped])
    loop = asyncio.new_event_loop()
    folder = tempfile.mkdtemp(prefix="vdpad-fuzz-")

    async def made() -> JsonRpc:
        settings = {"socket": f"{folder}/socket", "records": {"directory": folder}}
        return JsonRpc(Service(Settings.model_validate({**settings, "limits": _LIMITS})).api)

    rpc = loop.run_until_complete(made())
    return lambda data: loop.run_until_complete(rpc.answer(data, Peer(None)))


def _dropped(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


_ANSWER = _answering()


def one(data: bytes) -> None:
    """A datagram."""
    reply = _ANSWER(data[:MAX_DATAGRAM])
    if reply is None:
        assert "id" not in json.loads(data[:MAX_DATAGRAM])
        return
    assert len(reply) <= MAX_DATAGRAM
    whole = json.loads(reply)
    if "error" in whole:
        error = whole["error"]
        kind = error["data"]["kind"]
        assert kind != "internal", error
        assert error["code"] == CODES[kind]
        assert error["message"]
    else:
        assert whole.keys() == {"jsonrpc", "id", "result"}
