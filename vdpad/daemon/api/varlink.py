"""The API as a Varlink interface: docs/api.md, "The same over a stream".

Methods are the API's in CamelCase, with the same parameters and results. The fields of a Varlink
reply are known: so a list has a name in it, and so has an operation, as `Status` gives either one
or several.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import vdpad
from vdpad.daemon.api.api import WATCH, Api
from vdpad.daemon.api.methods import METHODS
from vdpad.daemon.api.results import (
    Count,
    DeviceResult,
    OperationResult,
    Result,
    SummaryResult,
)
from vdpad.service.request import Request
from vdpad.service.varlink.about import About
from vdpad.service.varlink.interface import Interface, Method
from vdpad.wire.varlink import Json

INTERFACE = "io.vdpad.Daemon"

ABOUT = About(vendor="vdpad", product="vdpad", version=vdpad.__version__, url="man:vdpad(8)")


class DevicesReply(Result):
    """Devices."""

    devices: tuple[DeviceResult, ...]


class OperationReply(Result):
    """Prepare and Cancel."""

    operation: OperationResult


class WatchReply(Result):
    """Watch, each time."""

    operation: SummaryResult


class StatusReply(Result):
    """Status: either one operation, or those that match."""

    operation: OperationResult | None
    operations: tuple[SummaryResult, ...] | None
    total: Count | None


def interface(api: Api) -> Interface:
    """The interface, over what does the work."""

    async def watch(request: Request) -> AsyncGenerator[Json]:
        async with contextlib.aclosing(api.watch(_for_api(request, WATCH))) as summaries:
            async for each in summaries:
                yield {"operation": each}

    methods = {called(each): _method(api, each) for each in METHODS}
    return Interface(INTERFACE, description, methods, {called(WATCH): watch})


def _for_api(request: Request, method: str) -> Request:
    """A request of the API's own."""
    request.method = method
    request.document = json.dumps({"params": request.params}).encode()
    return request


def called(method: str) -> str:
    """A method of the API by its Varlink name."""
    return method.capitalize()


def _method(api: Api, name: str) -> Method:
    wrap = _WRAPPED.get(name, _as_it_is)

    async def call(request: Request) -> Json:
        return wrap(await api.call(_for_api(request, name)))

    return call


def _as_it_is(result: Json) -> Json:
    return result


def _in_operation(result: Json) -> Json:
    return {"operation": result}


def _one_or_several(result: Json) -> Json:
    return result if "operations" in result else _in_operation(result)


_WRAPPED: Mapping[str, Callable[[Any], Json]] = {
    "devices": lambda result: {"devices": result},
    "prepare": _in_operation,
    "cancel": _in_operation,
    "status": _one_or_several,
}

REPLIES: Mapping[str, type[Any]] = {
    "devices": DevicesReply,
    "prepare": OperationReply,
    "cancel": OperationReply,
    "status": StatusReply,
}
"""What a reply's parameters are, where they are not the method's result."""


@cache
def description() -> str:
    """The interface in Varlink's language; schema.py makes it."""
    return files(__package__).joinpath(f"{INTERFACE}.varlink").read_text()
