"""An operation as callers are shown it."""

from tests.daemon.support import Json
from vdpad.daemon.api.results import OperationResult
from vdpad.daemon.operations.operation import Operation


def shown(operation: Operation) -> Json:
    """The API's Operation."""
    return OperationResult.of(operation.snapshot()).model_dump(mode="json")
