"""The API as a Varlink interface: docs/api.md, "The same over a stream".

Methods are the API's in CamelCase, with the same parameters and results. The fields of a Varlink
reply are known: so a list has a name in it, and so has an operation, as `Status` gives either one
or several.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import vdpad
from vdpad.api.devices import DeviceResult
from vdpad.api.results import Count, Result
from vdpad.daemon.api.api import WATCH, Api
from vdpad.daemon.api.methods import METHODS
from vdpad.daemon.api.results import OperationResult, SummaryResult
from vdpad.service.request import Request
from vdpad.service.varlink.about import About
from vdpad.service.varlink.interface import Interface
from vdpad.service.varlink.serving import Wrap, as_it_is, interface_of
from vdpad.wire.addresses import DAEMON_INTERFACE
from vdpad.wire.varlink import Json

INTERFACE = DAEMON_INTERFACE

ABOUT = About(vendor="vdpad", product="vdpad", version=vdpad.__version__, url="man:vdpad(8)")


class DevicesReply(Result):
    """What Devices replies: an object, as Varlink has no other replies."""

    devices: tuple[DeviceResult, ...]


class OperationReply(Result):
    """What Prepare and Cancel reply."""

    operation: OperationResult


class WatchReply(Result):
    """What each reply of Watch holds."""

    operation: SummaryResult


class StatusReply(Result):
    """Status: either one operation, or those that match."""

    operation: OperationResult | None
    operations: tuple[SummaryResult, ...] | None
    total: Count | None


def interface(api: Api) -> Interface:
    """The interface, over what does the work."""

    async def watch(request: Request) -> AsyncGenerator[Json]:
        async with contextlib.aclosing(api.watch(request)) as summaries:
            async for each in summaries:
                yield {"operation": each}

    return interface_of(INTERFACE, description, api, METHODS, _WRAPPED, {WATCH: watch})


def _in_operation(result: Json) -> Json:
    return {"operation": result}


def _one_or_several(result: Json) -> Json:
    return as_it_is(result) if "operations" in result else _in_operation(result)


_WRAPPED: Mapping[str, Wrap] = {
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
