"""The results of each method, and what goes with each error: docs/api.md, "Results", "Errors"."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from vdpad.api.results import Count, NoData, ProblemsData, ReportResult, Result, is_none
from vdpad.daemon.operations.operation import Snapshot
from vdpad.daemon.operations.transitions import State
from vdpad.host.sysfs import Holder
from vdpad.restore.replay import Outcome
from vdpad.service.refusal import Kind


class LimitsResult(Result):
    """How much is taken; bytes and descriptors by the way that was asked over."""

    datagram_bytes: Count
    descriptors: Count
    operations_at_once: Count
    operations_kept: Count
    report_lines: Count
    deadline_ms: Count
    deadline_ms_max: Count


class InfoResult(Result):
    """What the daemon is, and takes."""

    name: str
    version: str
    api: Count
    limits: LimitsResult
    formats: tuple[str, ...]
    targets: tuple[str, ...]


class _OfOperation(Result):
    migration: str
    state: State
    digest: str
    target: Mapping[str, Any]
    """As the caller named it."""
    commands: Count
    doorbells: Count
    widened: tuple[str, ...]
    prepare_us: Count


_OF_DETAILS = set(_OfOperation.model_fields) - {"state"}


def _of(snapshot: Snapshot) -> dict[str, Any]:
    details = {name: getattr(snapshot.details, name) for name in _OF_DETAILS}
    return {**details, "state": snapshot.state}


class OperationResult(_OfOperation):
    """A migration's restore with its whole report."""

    report: ReportResult | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """An operation's."""
        report = snapshot.ending and snapshot.ending.report
        return cls(**_of(snapshot), report=report)


class SummaryResult(_OfOperation):
    """A migration's restore, in a list."""

    outcome: Outcome | None
    began: AwareDatetime | None
    ended: AwareDatetime | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """An operation's."""
        ending = snapshot.ending
        return cls(
            **_of(snapshot),
            outcome=ending.report.outcome if ending and ending.report else None,
            began=snapshot.details.began,
            ended=ending and ending.ended,
        )


class OperationsResult(Result):
    """As many as fit of those that match, newest first."""

    operations: tuple[SummaryResult, ...]
    total: Count


class ReleasedResult(Result):
    """Nothing but that it is done."""


# --- what goes with errors ---


class RecordedData(Result):
    """What the migration is known for."""

    digest: str


class HeldData(Result):
    """Who has it: another migration, or other processes."""

    migration: Annotated[str | None, Field(exclude_if=is_none)] = None
    holders: Annotated[tuple[Holder, ...] | None, Field(exclude_if=is_none)] = None


class ReportedData(Result):
    """What became of the commands; left out where none was sent."""

    report: Annotated[ReportResult | None, Field(exclude_if=is_none)] = None


class ReasonData(Result):
    """What is wrong with descriptors or geometry."""

    reason: str


class OverloadedData(Result):
    """The migration that takes what is asked for, where one does."""

    migration: Annotated[str | None, Field(exclude_if=is_none)] = None


DATA: Mapping[Kind, type[Result]] = {
    Kind.PARSE_ERROR: NoData,
    Kind.INVALID_REQUEST: NoData,
    Kind.METHOD_NOT_FOUND: NoData,
    Kind.INVALID_PARAMS: ProblemsData,
    Kind.INTERNAL: ReportedData,
    Kind.INCOMPATIBLE: ProblemsData,
    Kind.CONFLICT: RecordedData,
    Kind.BUSY: HeldData,
    Kind.NO_SUCH_DEVICE: NoData,
    Kind.REJECTED: ReportedData,
    Kind.TIMEOUT: ReportedData,
    Kind.DEVICE_BROKEN: ReportedData,
    Kind.NOT_ALLOWED: NoData,
    Kind.NO_SUCH_MIGRATION: NoData,
    Kind.BAD_LEND: ReasonData,
    Kind.OVERLOADED: OverloadedData,
}
"""`error.data` of each kind, beside `kind`."""
