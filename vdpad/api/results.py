"""Results that more than one API gives, and what goes with errors: docs/api.md."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
)

from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Incompatible, Plan, plan
from vdpad.restore.program import Program, encode
from vdpad.restore.report import Report
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.virtio.features import unmet_requirements
from vdpad.virtio.rings import RingGeometry

Count = Annotated[int, Field(ge=0)]


class Result(BaseModel):
    """A result, or part of one: frozen, nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def is_none(value: object) -> bool:
    """For `exclude_if` of a field that is left out where there is nothing to say."""
    return value is None


def is_empty(value: tuple[object, ...]) -> bool:
    """The same, for a list."""
    return not value


class StepResult(Result):
    """Commands of one kind, in a plan."""

    command: str
    count: Count


class CheckResult(Result):
    """Whether a target takes a state, and what would be sent."""

    compatible: bool
    problems: tuple[Problem, ...]
    commands: Count
    doorbells: Count
    """The most that a replay rings."""
    plan: tuple[StepResult, ...]
    widened: tuple[str, ...]
    notes: Annotated[tuple[str, ...], Field(exclude_if=is_empty)] = ()
    """Where the state's features are not as the specification has them."""

    @classmethod
    def of(
        cls,
        state: NetState,
        capabilities: Capabilities,
        geometry: RingGeometry,
        *,
        event_idx: bool,
    ) -> "CheckResult":
        """Of a state, and of a device by what it can do and the ring of its CVQ."""
        planned = plan(state, capabilities)
        if isinstance(planned, Incompatible):
            return _incompatible(planned, state)
        program = encode(
            planned.commands, geometry, event_idx=event_idx, legacy=capabilities.is_legacy
        )
        return _compatible(planned, state, program)


def _compatible(planned: Plan, state: NetState, program: Program) -> CheckResult:
    return CheckResult(
        compatible=True,
        problems=(),
        commands=len(program.commands),
        doorbells=program.most_doorbells,
        plan=tuple(StepResult(command=name, count=count) for name, count in planned.counts()),
        widened=planned.widened,
        notes=tuple(unmet_requirements(state.features)),
    )


def _incompatible(planned: Incompatible, state: NetState) -> CheckResult:
    return CheckResult(
        compatible=False,
        problems=planned.problems,
        commands=0,
        doorbells=0,
        plan=(),
        widened=(),
        notes=tuple(unmet_requirements(state.features)),
    )


def without_empty_notes(report: Report, dump: SerializerFunctionWrapHandler) -> Any:
    """For a WrapSerializer of a Report: notes and wrap counters only where there are any."""
    told = dump(report)
    if not report.notes:
        del told["notes"]
    if report.ring is not None:
        told["ring"] = report.ring.to_json()
    return told


# A lambda, as what a function says that it returns would be taken for the schema. It does without
# `dump`, which takes ten times as long, while a guest waits.
ReportResult = Annotated[Report, WrapSerializer(lambda report, dump: report.to_json())]
"""A Report as it is sent: with notes only where there are any."""


# --- what goes with errors ---


class ProblemsData(Result):
    """What goes with a refusal for its parameters: all that is wrong, each with its path."""

    problems: tuple[Problem, ...]


class NoData(Result):
    """There is nothing to add."""
