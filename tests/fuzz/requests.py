"""Datagrams to a daemon: each has its reply, a result or an error that the page knows.

What follows the last NUL of the bytes is no part of the datagram: each byte is a descriptor that
comes with it (descriptors.py).

Once a lent kick was rung, SIGALRM is the daemon's and LibFuzzer's timeout is none: whoever runs it
ends it (test_fuzz.py).
"""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable
from typing import Any

import structlog

from tests.daemon.support import CODES, MAX_DATAGRAM
from tests.fuzz.descriptors import made
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.service.jsonrpc import JsonRpc
from vdpad.wire.datagrams import MAX_DESCRIPTORS, NoRequest, Peer

# So that commits and what follows them are reached soon, and old operations go.
_LIMITS = {"operations_at_once": 4, "operations_kept": 8}

# Nobody serves a lent ring, so that each commit on one takes as long as it may.
_REPLAY = {"deadline_ms": 5, "poll_us": 0}
_LONG_DEADLINE = re.compile(rb'("deadline_ms"\s*:\s*)[1-9]\d+')


def _answering() -> Callable[[bytes, Peer], bytes | None]:
    """A daemon in this process, without its sockets."""
    structlog.configure(processors=[_dropped])
    loop = asyncio.new_event_loop()
    folder = tempfile.mkdtemp(prefix="vdpad-fuzz-")

    async def begun() -> JsonRpc:
        settings = {"socket": f"{folder}/socket", "records": {"directory": folder}}
        limits = {"limits": _LIMITS, "replay": _REPLAY}
        return JsonRpc(Service(Settings.model_validate({**settings, **limits})).api)

    rpc = loop.run_until_complete(begun())

    async def answered(data: bytes, peer: Peer) -> bytes | None:
        try:
            return await rpc.answer(data, peer)
        finally:
            peer.close_fds()

    return lambda data, peer: loop.run_until_complete(answered(data, peer))


def _dropped(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


_ANSWER = _answering()


def _make_room(told: dict[str, Any]) -> None:
    """Where too much is prepared for anything else to be, gives up the first of it."""
    if told["kind"] == "overloaded" and "migration" in told:
        wish = {"migration": told["migration"]}
        cancel = {"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": wish}
        _ANSWER(json.dumps(cancel).encode(), Peer(None))


def _peer(kinds: bytes) -> Peer:
    """As its socket tells of it."""
    if len(kinds) > MAX_DESCRIPTORS:
        return Peer(None, too_many_fds=True)
    return Peer(None, fds=made(kinds))


def one(data: bytes) -> None:
    """A datagram, and what comes with it."""
    *parts, last = data.split(b"\0")
    datagram, kinds = (b"\0".join(parts), last) if parts else (last, b"")
    datagram = _LONG_DEADLINE.sub(rb"\g<1>9", datagram[:MAX_DATAGRAM])
    try:
        reply = _ANSWER(datagram, _peer(kinds))
    except NoRequest:
        assert json.loads(datagram).keys() & {"result", "error"}
        return
    if reply is None:
        assert "id" not in json.loads(datagram)
        return
    assert len(reply) <= MAX_DATAGRAM
    whole = json.loads(reply)
    if "error" in whole:
        error = whole["error"]
        kind = error["data"]["kind"]
        assert kind != "internal", error
        assert error["code"] == CODES[kind]
        assert error["message"]
        _make_room(error["data"])
    else:
        assert whole.keys() == {"jsonrpc", "id", "result"}
