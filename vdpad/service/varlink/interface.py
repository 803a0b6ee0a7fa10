"""An interface: methods by name, and its description.

What a method raises is a Refusal. Its kind becomes the error's name: `no-such-device` is the
interface's NoSuchDevice, and parameters that are not in order are Varlink's own InvalidParameter.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.wire.varlink import SERVICE, CallReply, Json

Method = Callable[[Request], Awaitable[Json]]
"""Gives the parameters of the reply. Raises Refusal."""

Series = Callable[[Request], AsyncGenerator[Json]]
"""Gives those of one reply after the other, for as long as they are taken. Raises Refusal."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What may be called, and how it describes itself."""

    name: str
    describe: Callable[[], str]
    """Its description in Varlink's language."""
    methods: Mapping[str, Method]
    series: Mapping[str, Series] = field(default_factory=dict)
    """Those that can be called with `more` only."""


def error_reply(interface: str, refusal: Refusal) -> CallReply:
    """The reply to a call of an interface's that was refused."""
    data = {"message": str(refusal), **refusal.data}
    if refusal.kind is Kind.INVALID_PARAMS:
        return CallReply({"parameter": _first(refusal), **data}, f"{SERVICE}.InvalidParameter")
    return CallReply(data, f"{interface}.{error_name(refusal.kind)}")


def called(method: str) -> str:
    """A method of an API by its Varlink name."""
    return method.capitalize()


def error_name(kind: Kind) -> str:
    """A kind in CamelCase."""
    return "".join(word.capitalize() for word in kind.value.split("-"))


def _first(refusal: Refusal) -> str:
    """The first parameter that is not in order."""
    path: str = refusal.data["problems"][0]["path"]
    return path.partition(".")[0]
