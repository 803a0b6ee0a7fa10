"""An independent client, a daemon in this process, and the shapes of docs/api.md for its answers.

Nothing here uses vdpad.client, and no shape is taken from vdpad's own code: the judge is the page.
"""

import array
import asyncio
import itertools
import json
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.users import User
from tests.support.waiting import GUARD
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.wire.datagrams import AncillarySocket

Json = dict[str, Any]

# docs/api.md, "Transport" and "Errors".
MAX_DATAGRAM = 200 * 1024
CODES = {
    "parse-error": -32700,
    "invalid-request": -32600,
    "method-not-found": -32601,
    "invalid-params": -32602,
    "internal": -32603,
    "incompatible": -32001,
    "conflict": -32002,
    "busy": -32003,
    "no-such-device": -32004,
    "rejected": -32005,
    "timeout": -32006,
    "device-broken": -32007,
    "not-allowed": -32008,
    "no-such-migration": -32009,
    "bad-lend": -32010,
    "overloaded": -32011,
}


# An id of Caller.call's.
_ID = re.compile(r"[0-9a-f]{16}-[0-9]+")

# --- the client ---


class Caller:
    """A socket that asks. It has an address of the kernel's choice unless it is given one."""

    def __init__(
        self, path: Path, address: str | bytes | None = "", user: User | None = None
    ) -> None:
        """
        Args:
            path: the daemon's socket.
            address: to bind to; None binds to nothing, so that no reply can come.
            user: who asks; None is whoever runs the test.
        """
        self._do = _do if user is None else user.do
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        if address is not None:
            self._do(self.socket.bind, address)
        self._path = str(path)
        self._own = f"{secrets.token_hex(8)}-"
        """What its ids begin with. A reply to a client that has gone finds whoever is given its
        name next, which may be this one: other tests' clients share the namespace."""
        self._ids = (f"{self._own}{number}" for number in itertools.count(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    async def send(self, datagram: bytes, fds: Sequence[int] = ()) -> None:
        """Sends these bytes and descriptors, as soon as the daemon has room for them."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with asyncio.timeout(GUARD):
            while True:
                try:
                    self._do(self.socket.sendmsg, [datagram], control, 0, self._path)
                except BlockingIOError:
                    await asyncio.sleep(0.0005)
                else:
                    return

    async def receive(self) -> Json:
        """The next reply, whosever it is."""
        async with asyncio.timeout(GUARD):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 2 * MAX_DATAGRAM)
        return checked_reply(data)

    def received(self) -> Json | None:
        """A reply that is there already."""
        try:
            return checked_reply(self.socket.recv(2 * MAX_DATAGRAM))
        except BlockingIOError:
            return None

    async def call(self, method: str, fds: Sequence[int] = (), /, **params: Any) -> Json:
        """Asks, and gives the whole reply; no other may have come before it."""
        request_id = next(self._ids)
        await self.send(request(method, request_id, **params), fds)
        reply = await self.receive()
        while _is_stray(reply, self._own):
            reply = await self.receive()
        assert reply["id"] == request_id
        return reply

    async def result(self, method: str, fds: Sequence[int] = (), /, **params: Any) -> Any:
        """Asks, and gives the result."""
        reply = await self.call(method, fds, **params)
        assert "result" in reply, reply
        return reply["result"]

    async def listed(self, **params: Any) -> list[Json]:
        """What `status` lists: all that there is, which these settings let it tell at once."""
        result = await self.result("status", **params)
        assert result.keys() == {"operations", "total"}
        assert all(map(is_summary, result["operations"]))
        operations: list[Json] = result["operations"]
        return operations

    async def error(self, method: str, fds: Sequence[int] = (), /, **params: Any) -> Json:
        """Asks, and gives the error."""
        reply = await self.call(method, fds, **params)
        assert "error" in reply, reply
        error: Json = reply["error"]
        return error


def _is_stray(reply: Json, own: str) -> bool:
    """Whether it answers the `call` of another Caller."""
    return bool(_ID.match(str(reply["id"]))) and not str(reply["id"]).startswith(own)


def _do(call: Callable[..., Any], *args: Any) -> Any:
    return call(*args)


def request(method: str, request_id: object = ..., /, **params: Any) -> bytes:
    """A request as a datagram; without an id it is a notification."""
    whole: Json = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    if request_id is ...:
        del whole["id"]
    return json.dumps(whole).encode()


def checked_reply(data: bytes) -> Json:
    """A reply, once it is one: strict JSON, JSON-RPC 2.0, within the limit."""
    assert len(data) <= MAX_DATAGRAM
    reply = json.loads(data.decode(), parse_constant=_no_constant)
    assert reply.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    assert reply["jsonrpc"] == "2.0"
    if "error" in reply:
        assert reply["error"].keys() == {"code", "message", "data"}
    checked: Json = reply
    return checked


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in a reply")


def is_error(error: Json, kind: str, *data: str) -> bool:
    """Whether an error is of this kind: its code, a sentence, and exactly these data."""
    assert (error["data"]["kind"], error["code"]) == (kind, CODES[kind]), error
    assert error["data"].keys() == {"kind", *data}, error
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) < 1000
    assert "Traceback" not in error["message"]
    return True


async def until_state(caller: Caller, migration: str, state: str) -> Json:
    """The operation of a migration, once it is in this state."""
    async with asyncio.timeout(GUARD):
        while True:
            reply = await caller.call("status", migration=migration)
            if "result" in reply and reply["result"]["state"] == state:
                operation: Json = reply["result"]
                return operation
            await asyncio.sleep(0.005)


# --- a daemon in this process ---


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Path]:
    """A daemon in the running loop; gives its socket."""
    path = folder / "vdpad.sock"
    service = Service(Settings.model_validate({"socket": path, **settings}))
    await service.start()
    try:
        yield path
    finally:
        async with asyncio.timeout(GUARD):
            await service.stop()


def give_small_buffers(patch: pytest.MonkeyPatch) -> None:
    """Makes this a host that lets a process without privileges have Linux's default buffers only.

    For daemons in this process.
    """
    so_sndbufforce, default = 32, 212992

    def setsockopt(self: socket.socket, level: int, option: int, value: int) -> None:
        if (level, option) == (socket.SOL_SOCKET, so_sndbufforce):
            raise PermissionError
        if (level, option) == (socket.SOL_SOCKET, socket.SO_SNDBUF):
            value = min(value, default)
        socket.socket.setsockopt(self, level, option, value)

    patch.setattr(AncillarySocket, "setsockopt", setsockopt, raising=False)


# --- what is sent ---

KEY = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"

# In the order of their bits, as a device shows them.
FEATURES = [
    "GUEST_CSUM",
    "CTRL_GUEST_OFFLOADS",
    "MAC",
    "GUEST_TSO4",
    "CTRL_VQ",
    "CTRL_RX",
    "CTRL_VLAN",
    "CTRL_RX_EXTRA",
    "MQ",
    "CTRL_MAC_ADDR",
    "RING_EVENT_IDX",
    "VERSION_1",
    "VQ_NOTF_COAL",
    "NOTF_COAL",
    "HASH_REPORT",
    "RSS",
]

# All that a state can hold beside a hash report, which excludes RSS.
STATE: Json = {
    "version": 1,
    "features": FEATURES,
    "mac": "52:54:00:12:34:56",
    "rx": {
        "promisc": False,
        "allmulti": True,
        "alluni": False,
        "nomulti": False,
        "nouni": False,
        "nobcast": True,
    },
    "mac_table": {
        "unicast": ["52:54:00:00:00:07", "52:54:00:00:00:08"],
        "multicast": ["01:00:5e:00:00:01"],
        "unicast_overflow": False,
        "multicast_overflow": False,
    },
    "vlans": [1, 5, 100, 101],
    "queue_pairs": 4,
    "rss": {
        "hash_types": ["IPv4", "TCPv4"],
        "indirection_table": [0, 1, 2, 3],
        "unclassified_queue": 3,
        "max_tx_queues": 4,
        "key": KEY,
    },
    "guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"],
    "coalescing": {
        "rx": {"max_packets": 32, "max_usecs": 50},
        "tx": {"max_packets": 64, "max_usecs": 100},
        "queues": {"0": {"max_packets": 16, "max_usecs": 25}},
    },
}

# MAC, MQ, RSS, offloads, three of coalescing, four VLANs, the table, six modes.
STATE_COMMANDS = 1 + 1 + 1 + 1 + 3 + 4 + 1 + 6

HASH_REPORT: Json = {
    "version": 1,
    "features": FEATURES,
    "queue_pairs": 2,
    "hash_report": {"hash_types": ["IPv4", "UDPv6"], "key": KEY},
}


def vlans(*vids: int | list[int]) -> Json:
    """A state of VLANs: one command for each."""
    return {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": list(vids)}


def software(name: str = "sim0") -> Json:
    """A software device as a target."""
    return {"kind": "software", "name": name}


def slow(seconds: float, name: str = "sim0") -> Json:
    """The settings of a software device that takes so long for each command."""
    return {"name": name, "misbehave": {"seconds_a_command": seconds}}


def faulty(fault: str, *positions: int, name: str = "sim0") -> Json:
    """The settings of a software device with a fault at these commands."""
    return {"name": name, "misbehave": {"faults": {str(at): fault for at in positions}}}


# --- docs/api.md, "Results" ---


def has_shape(value: Any, shape: Any) -> bool:
    """Whether a value is of this shape: a type, one of a set, a list of one shape, or keys."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), value
        assert value.keys() == shape.keys()
        return all(has_shape(value[key], inner) for key, inner in shape.items())
    if isinstance(shape, list):
        assert isinstance(value, list), value
        return all(has_shape(each, shape[0]) for each in value)
    if isinstance(shape, set):
        assert value in shape, value
    else:
        assert type(value) is shape, value
        assert shape is not int or value >= 0
    return True


LINE = {"index": int, "command": str, "arguments": str, "ack": {1, None}}
OUTCOMES = {"restored", "rejected", "incomplete", "broken", "interrupted"}
REPORT = {
    "migration": str,
    "outcome": OUTCOMES,
    "commands": int,
    "applied": int,
    "rejected": [LINE],
    "unanswered": [LINE],
    "rejected_total": int,
    "unanswered_total": int,
    "doorbells": int,
    "widened": [str],
    "prepare_us": int,
    "commit_us": int,
    "device_must_reset": bool,
}
OPERATION = {
    "migration": str,
    "state": {"prepared", "committing", "restored", "failed", "cancelled"},
    "digest": str,
    "commands": int,
    "doorbells": int,
    "widened": [str],
    "prepare_us": int,
}
PROBLEM = {"path": str, "code": str, "message": str}
CHECK = {
    "compatible": bool,
    "problems": [PROBLEM],
    "commands": int,
    "doorbells": int,
    "plan": [{"command": str, "count": int}],
    "widened": [str],
}
INDICES = {"next_available": int, "next_used": int}


def is_report(report: Json, outcome: str) -> bool:
    """Whether it is a Report of this outcome, and agrees with itself."""
    rest = dict(report)
    ring, notes = rest.pop("ring"), rest.pop("notes", ["some"])
    assert has_shape(notes, [str])
    assert notes
    assert ring is None or has_shape(ring, INDICES)
    assert has_shape(rest, REPORT)
    assert report["outcome"] == outcome
    if outcome == "interrupted":
        assert ring is None
    else:
        lost = outcome in ("incomplete", "broken")
        assert (ring is None) is report["device_must_reset"] is lost
    not_applied = report["rejected_total"] + report["unanswered_total"]
    assert report["applied"] + not_applied == report["commands"]
    for kind, ack in (("rejected", 1), ("unanswered", None)):
        lines = report[kind]
        assert len(lines) == min(64, report[f"{kind}_total"])
        assert all(line["ack"] == ack for line in lines)
        indices = [line["index"] for line in lines]
        assert indices == sorted(set(indices))
    return True


def is_operation(operation: Json, state: str, outcome: str | None = None) -> bool:
    """Whether it is an Operation in this state, with a report of this outcome or with none."""
    rest = dict(operation)
    report, target = rest.pop("report"), rest.pop("target")
    assert has_shape(rest, OPERATION)
    assert isinstance(target, dict)
    assert operation["state"] == state
    assert report is None if outcome is None else is_report(report, outcome)
    return True


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def is_summary(summary: Json) -> bool:
    """Whether it is a Summary, and agrees with itself."""
    rest = dict(summary)
    outcome, began, ended = (rest.pop(name) for name in ("outcome", "began", "ended"))
    assert isinstance(rest.pop("target"), dict)
    assert has_shape(rest, OPERATION)
    has_ended = summary["state"] in ("restored", "failed", "cancelled")
    assert outcome in {*OUTCOMES, None}
    assert (outcome == "restored") is (summary["state"] == "restored")
    assert outcome is None or has_ended
    assert _TIME.fullmatch(began)
    assert _TIME.fullmatch(ended) if has_ended else ended is None
    return True


def is_summary_of(summary: Json, operation: Json) -> bool:
    """Whether it is this operation's."""
    told = {name: value for name, value in operation.items() if name != "report"}
    report = operation["report"]
    assert {**told, "outcome": report and report["outcome"]} == {
        name: value for name, value in summary.items() if name not in ("began", "ended")
    }
    return is_summary(summary)
