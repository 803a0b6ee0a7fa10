"""The API's methods with their parameters and results: docs/api.md, "Methods", for machines."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from vdpad.api.describing import ApiMethod
from vdpad.api.devices import DeviceResult
from vdpad.api.params import NoParams
from vdpad.api.results import CheckResult, ReportResult
from vdpad.daemon.api import results
from vdpad.daemon.api.params import (
    CheckParams,
    CommitParams,
    MigrationParams,
    PrepareParams,
    ReleaseParams,
    RestoreParams,
    StatusParams,
)
from vdpad.daemon.operations.operation import Snapshot
from vdpad.restore.report import Report

METHODS: Mapping[str, ApiMethod] = {
    "info": ApiMethod(
        "What the daemon is, and takes.",
        NoParams,
        results.InfoResult,
    ),
    "devices": ApiMethod(
        "The vDPA devices of the daemon's host.",
        NoParams,
        tuple[DeviceResult, ...],
    ),
    "check": ApiMethod(
        "Whether a target takes a state, and what would be sent. Never touches a device.",
        CheckParams,
        CheckResult,
    ),
    "prepare": ApiMethod(
        "Checks and encodes a state for a target, so that commit has next to nothing to do.",
        PrepareParams,
        results.OperationResult,
    ),
    "commit": ApiMethod(
        "Replays what was prepared. A lent target's descriptors ride on it.",
        CommitParams,
        ReportResult,
    ),
    "restore": ApiMethod(
        "prepare and commit in one.",
        RestoreParams,
        ReportResult,
    ),
    "status": ApiMethod(
        "What became of a migration; without one, of those that match, newest first.",
        StatusParams,
        results.OperationResult | results.OperationsResult,
    ),
    "cancel": ApiMethod(
        "Gives up what was prepared.",
        MigrationParams,
        results.OperationResult,
    ),
    "release": ApiMethod(
        "Closes a vhost-vdpa device that vdpad keeps, which resets the device.",
        ReleaseParams,
        results.ReleasedResult,
    ),
}

# Made beforehand: what is sent is dumped by them, as it is described.
_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    name: TypeAdapter(each.result) for name, each in METHODS.items()
}


def plain(method: str, result: object) -> Any:
    """A method's result as plain JSON values."""
    if isinstance(result, Report):
        return result.to_json()  # the same in a third of the time: a guest waits
    return _ADAPTERS[method].dump_python(result, mode="json")


def plain_summary(snapshot: Snapshot) -> Any:
    """The same of an operation in a list."""
    return results.SummaryResult.of(snapshot).model_dump(mode="json")
