"""The API's methods with their parameters and results: docs/api.md, "Methods", for machines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdpad.daemon.api import results
from vdpad.daemon.api.params import (
    CheckParams,
    CommitParams,
    MigrationParams,
    NoParams,
    PrepareParams,
    ReleaseParams,
    RestoreParams,
    StatusParams,
)
from vdpad.daemon.targets.target_params import Params
from vdpad.restore.report import Report


@dataclass(frozen=True, slots=True)
class ApiMethod:
    """What a method takes and gives."""

    does: str
    """In a sentence."""
    params: type[Params]
    result: Any
    """A type that pydantic has a schema for."""


METHODS: Mapping[str, ApiMethod] = {
    "info": ApiMethod(
        "What the daemon is, and takes.",
        NoParams,
        results.InfoResult,
    ),
    "devices": ApiMethod(
        "The vDPA devices of the daemon's host.",
        NoParams,
        tuple[results.DeviceResult, ...],
    ),
    "check": ApiMethod(
        "Whether a target takes a state, and what would be sent. Never touches a device.",
        CheckParams,
        results.CheckResult,
    ),
    "prepare": ApiMethod(
        "Checks and encodes a state for a target, so that commit has next to nothing to do.",
        PrepareParams,
        results.OperationResult,
    ),
    "commit": ApiMethod(
        "Replays what was prepared. A lent target's descriptors ride on it.",
        CommitParams,
        Report,
    ),
    "restore": ApiMethod(
        "prepare and commit in one.",
        RestoreParams,
        Report,
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
