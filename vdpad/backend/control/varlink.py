"""The control socket's API as a Varlink interface; `Watch` gives its status with a name to it."""

import contextlib
from collections.abc import AsyncGenerator
from functools import cache
from importlib.resources import files

import vdpad
from vdpad.api.results import Result
from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.methods import METHODS, WATCH
from vdpad.backend.control.results import BackEndStatusResult
from vdpad.service.request import Request
from vdpad.service.varlink.about import About
from vdpad.service.varlink.interface import Interface
from vdpad.service.varlink.serving import interface_of
from vdpad.wire.addresses import BACK_END_INTERFACE
from vdpad.wire.varlink import Json

INTERFACE = BACK_END_INTERFACE

ABOUT = About(
    vendor="vdpad",
    product="vdpad-vhost-user",
    version=vdpad.__version__,
    url="man:vdpad-vhost-user(8)",
)


class WatchedReply(Result):
    """Watch, each time."""

    status: BackEndStatusResult


def interface(api: ControlApi) -> Interface:
    """The interface, over what does the work."""

    async def watch(request: Request) -> AsyncGenerator[Json]:
        async with contextlib.aclosing(api.watch(request)) as statuses:
            async for each in statuses:
                yield {"status": each}

    return interface_of(INTERFACE, description, api, METHODS, {}, {WATCH: watch})


@cache
def description() -> str:
    """The interface in Varlink's language; schema.py makes it."""
    return files(__package__).joinpath(f"{INTERFACE}.varlink").read_text()
