"""An operation as callers are shown it, and who asks for it."""

from tests.daemon.support import Json
from vdpad.daemon.api.results import OperationResult
from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.requester import Requester

ME = Requester(1000)
"""Who prepares what is prepared in these tests."""


def shown(operation: Operation) -> Json:
    """The API's Operation."""
    return OperationResult.of(operation.snapshot()).model_dump(mode="json")
