"""Varlink's messages: calls and replies, as JSON objects (varlink.org, "Method Call").

A call names its method in full, `io.vdpad.Daemon.Check`. Its reply has `parameters`, and for an
error `error` beside; all replies to one call but the last have `continues`. A client may send calls
one after the other without waiting: replies come in the same order.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdpad.errors import VdpadError
from vdpad.wire import strict_json
from vdpad.wire.datagrams import MAX_IN_REQUEST
from vdpad.wire.strict_json import Most

SERVICE = "org.varlink.service"
"""The interface that every Varlink service has, and that common errors are of."""

_CALL_KEYS = {"method", "parameters", "more", "oneway", "upgrade"}
_REPLY_KEYS = {"parameters", "error", "continues"}

Json = dict[str, Any]


class NoCall(VdpadError):
    """JSON that is no call, or no reply."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its message has it."""

    method: str
    """In full."""
    parameters: Json = field(default_factory=dict)
    more: bool = False
    """Its caller takes more than one reply."""
    oneway: bool = False
    """Its caller takes none."""
    upgrade: bool = False
    """Its caller wants to speak another protocol after the reply."""

    @property
    def interface(self) -> str:
        """What the method is of."""
        return self.method.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The method's within its interface."""
        return self.method.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class CallReply:
    """A reply as its message has it; an error is one too."""

    parameters: Json
    error: str | None = None
    """In full; None where it is none."""
    continues: bool = False
    """More replies to the same call follow."""


def push_call(call: Call) -> bytes:
    """A call as a message."""
    whole: Json = {"method": call.method, "parameters": call.parameters}
    for flag in ("more", "oneway", "upgrade"):
        if getattr(call, flag):
            whole[flag] = True
    return _encoded(whole)


def pull_call(data: bytes) -> Call:
    """The call in a message. A field that is null is as one that is not there.

    Raises:
        NotJson: it is none, or holds more than any request.
        NoCall: JSON that is no call.
    """
    whole = _object(data, _CALL_KEYS, MAX_IN_REQUEST)
    if b"null" in data:
        whole = _without_nulls(whole)
    method = whole.get("method")
    if not isinstance(method, str) or "." not in method:
        raise NoCall('method: expected an interface and a method, such as "io.vdpad.Daemon.Info"')
    flags = [_flag(whole, name) for name in ("more", "oneway", "upgrade")]
    if sum(flags) > 1:
        raise NoCall("expected at most one of more, oneway and upgrade")
    return Call(method, _parameters(whole), *flags)


def push_reply(reply: CallReply) -> bytes:
    """A reply as a message."""
    whole: Json = {"parameters": reply.parameters}
    if reply.error is not None:
        whole["error"] = reply.error
    if reply.continues:
        whole["continues"] = True
    return _encoded(whole)


def pull_reply(data: bytes) -> CallReply:
    """The reply in a message.

    Raises:
        NotJson: it is none.
        NoCall: JSON that is no reply.
    """
    whole = _object(data, _REPLY_KEYS)
    error = whole.get("error")
    if error is not None and not isinstance(error, str):
        raise NoCall("error: expected a name")
    return CallReply(_parameters(whole), error, _flag(whole, "continues"))


def _encoded(whole: Mapping[str, Any]) -> bytes:
    return json.dumps(whole, separators=(",", ":")).encode()


def _object(data: bytes, keys: set[str], most: Most | None = None) -> Json:
    whole = strict_json.loads(data, most)
    if not isinstance(whole, dict):
        raise NoCall(f"expected an object, got {type(whole).__name__}")
    if whole.keys() - keys:
        raise NoCall(f"expected no keys but {', '.join(sorted(keys))}")
    return whole


def _without_nulls(value: Any) -> Any:
    """Raises NoCall for what nests too deeply."""
    try:
        if isinstance(value, dict):
            return {key: _without_nulls(each) for key, each in value.items() if each is not None}
        if isinstance(value, list):
            return [_without_nulls(each) for each in value]
    except RecursionError:
        raise NoCall("expected fewer objects and arrays in one another") from None
    return value


def _parameters(whole: Json) -> Json:
    parameters = whole.get("parameters", {})
    if not isinstance(parameters, dict):
        raise NoCall("parameters: expected an object")
    return parameters


def _flag(whole: Json, name: str) -> bool:
    flag = whole.get(name, False)
    if not isinstance(flag, bool):
        raise NoCall(f"{name}: expected true or false")
    return flag
