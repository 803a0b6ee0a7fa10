"""The control socket's methods with their parameters and results, for machines."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from vdpad.api.describing import ApiMethod
from vdpad.api.params import NoParams
from vdpad.api.results import CheckResult, ReportResult
from vdpad.backend.control import results
from vdpad.backend.control.params import CheckStateParams, LoadParams, SwitchParams

METHODS: Mapping[str, ApiMethod] = {
    "info": ApiMethod(
        "What the back end is, and of which device.",
        NoParams,
        results.BackEndInfoResult,
    ),
    "status": ApiMethod(
        "Its front end, its queues, its guest's commands, and how it is.",
        NoParams,
        results.BackEndStatusResult,
    ),
    "capture": ApiMethod(
        "What the guest has set so far, and what of that no state can tell.",
        NoParams,
        results.CaptureResult,
    ),
    "check": ApiMethod(
        "Whether its device takes a state, and what would be sent. Never touches the device.",
        CheckStateParams,
        CheckResult,
    ),
    "load": ApiMethod(
        "Tries a state on its device, which must be stopped, and gives it to it at the next start "
        "of a guest that goes on.",
        LoadParams,
        ReportResult,
    ),
    "switch": ApiMethod(
        "Has another device take over, under a guest that runs too; the device before goes on "
        "where that fails.",
        SwitchParams,
        results.SwitchResult,
    ),
}

WATCH = "watch"
"""The method that only a connection has: its results are without end."""

# Made beforehand: what is sent is dumped by them, as it is described.
_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    name: TypeAdapter(each.result) for name, each in METHODS.items()
}


def plain(method: str, result: object) -> Any:
    """A method's result as plain JSON values."""
    return _ADAPTERS[method].dump_python(result, mode="json")
