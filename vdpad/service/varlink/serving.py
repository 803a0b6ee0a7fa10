"""An API as a Varlink interface: its methods in CamelCase, with the same parameters and results."""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any

from vdpad.service.request import Request, Served
from vdpad.service.varlink.interface import Interface, Method, Series, called
from vdpad.wire.varlink import Json

Wrap = Callable[[Any], Json]
"""Makes a reply's parameters, which have names, of a result."""


def as_it_is(result: Json) -> Json:
    """Of a result that is an object already."""
    return result


def interface_of(
    name: str,
    describe: Callable[[], str],
    served: Served,
    methods: Collection[str],
    wrapped: Mapping[str, Wrap],
    series: Mapping[str, Series],
) -> Interface:
    """The interface, over what does the work.

    Args:
        name: of the interface.
        describe: its description.
        served: does the work.
        methods: by the API's names.
        wrapped: for the methods whose results are no replies yet.
        series: by the API's names; they take requests of the API's own.
    """
    return Interface(
        name,
        describe,
        {called(each): _method(served, each, wrapped.get(each, as_it_is)) for each in methods},
        {called(each): _series(each, make) for each, make in series.items()},
    )


def _for_api(request: Request, method: str) -> Request:
    """A request of the API's own."""
    request.method = method
    request.document = json.dumps({"params": request.params}).encode()
    return request


def _method(served: Served, name: str, wrap: Wrap) -> Method:
    async def call(request: Request) -> Json:
        return wrap(await served.call(_for_api(request, name)))

    return call


def _series(name: str, make: Series) -> Series:
    async def give(request: Request) -> AsyncGenerator[Json]:
        async with contextlib.aclosing(make(_for_api(request, name))) as each_of:
            async for each in each_of:
                yield each

    return give
