"""The results of each method, and what goes with each error: docs/api.md."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, WrapSerializer

from vdpad.api.results import (
    Count,
    NoData,
    ProblemsData,
    ReportResult,
    Result,
    is_none,
    without_empty_notes,
)
from vdpad.backend.moving.switching import SwitchReport
from vdpad.service.refusal import Kind
from vdpad.state.formats import native
from vdpad.state.model import NetState


class BackEndPhase(StrEnum):
    """How far the back end is with its front end and its device."""

    WAITING = "waiting"
    """For a front end."""
    CONNECTED = "connected"
    """To a front end, which has not started the device yet."""
    RUNNING = "running"
    STOPPED = "stopped"
    """By the front end; what the guest has set is kept."""
    FAILED = "failed"
    """The guest was told that its device needs a reset."""


class BackEndLimitsResult(Result):
    """How much is taken, by the way that was asked over."""

    datagram_bytes: Count
    report_lines: Count


class BackEndInfoResult(Result):
    """What the back end is, and of which device."""

    name: str
    version: str
    api: Count
    device: str
    provides_control_queue: bool
    """The front end hands the control queue over, so that the guest's commands are seen."""
    limits: BackEndLimitsResult


class FrontEndResult(Result):
    """The process that has the device, as of when it connected."""

    pid: int
    uid: int


class QueueResult(Result):
    """A queue that the front end has set up."""

    index: Count
    size: Count
    base: Count
    """The available index that it began at, or that it stopped at."""
    enabled: bool


class CommandsResult(Result):
    """How many commands of the guest's went to the device, since the back end began."""

    forwarded: Count
    acked: Count
    refused: Count


class LoggingResult(Result):
    """That the front end tracks the guest's memory, and how what is written there is told."""

    way: Literal["relay", "everything"]
    pages: Count


class BackEndStatusResult(Result):
    """How the back end is."""

    phase: BackEndPhase
    device: str
    front_end: FrontEndResult | None
    features: tuple[str, ...]
    """What the guest's driver took."""
    queues: tuple[QueueResult, ...]
    commands: CommandsResult
    logging: LoggingResult | None
    report: ReportResult | None
    """Of the state that the device was given when it last started, or that was tried since."""
    reason: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Of a phase that is `failed`."""


class MissingResult(Result):
    """A part of the state that cannot be told."""

    part: str
    why: str


class RingResult(Result):
    """Where a queue stands."""

    queue: Count
    base: Count


# A lambda, as what a function says that it returns would be taken for the schema.
StateResult = Annotated[NetState, WrapSerializer(lambda state, dump: native.plain(state))]
"""A state as it is sent: without the parts that it does not have."""


class CaptureResult(Result):
    """What the guest has set so far."""

    state: StateResult | None
    missing: tuple[MissingResult, ...]
    rings: tuple[RingResult, ...]
    running: bool


# A lambda, as of the above.
SwitchResult = Annotated[
    SwitchReport, WrapSerializer(lambda report, dump: without_empty_notes(report, dump))
]
"""A Report, and for how long the data queues stood still."""


class TriedData(Result):
    """What became of the commands; absent where none were sent."""

    report: Annotated[ReportResult | None, Field(exclude_if=is_none)] = None


DATA: Mapping[Kind, type[Result]] = {
    Kind.PARSE_ERROR: NoData,
    Kind.INVALID_REQUEST: NoData,
    Kind.METHOD_NOT_FOUND: NoData,
    Kind.INVALID_PARAMS: ProblemsData,
    Kind.INTERNAL: NoData,
    Kind.INCOMPATIBLE: ProblemsData,
    Kind.BUSY: NoData,
    Kind.NO_SUCH_DEVICE: NoData,
    Kind.REJECTED: TriedData,
    Kind.TIMEOUT: TriedData,
    Kind.DEVICE_BROKEN: TriedData,
    Kind.NOT_ALLOWED: NoData,
    Kind.OVERLOADED: NoData,
}
"""`error.data` of each kind, beside `kind`."""
