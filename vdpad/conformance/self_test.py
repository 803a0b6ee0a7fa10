"""A run's result as plain values: what `vdpactl selftest --json` prints, and `--compare` reads.

docs/selftest.schema.json has its shape, which programs may rely on: keys are added, and none goes.
"""

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

import vdpad
from vdpad.conformance.answers import CommandOutcome
from vdpad.conformance.case import CaseOutcome, Level, Verdict
from vdpad.conformance.suite import Run
from vdpad.conformance.timing import Spread, Times
from vdpad.errors import VdpadError
from vdpad.state.problems import problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.features import FEATURES
from vdpad.wire.strict_json import Most, NotJson, refuse_more

MAX_SIZE = 1 << 22
"""Bytes of such a result; one has about 60 KiB. Stops a wrong file from being read whole."""

# Some 170 cases have 2000 values, 400 objects and lists, and 1500 names; and as many commands as
# features bring take half of that.
_MOST = Most(values=1 << 14, containers=1 << 12, names=1 << 13)

Ack = Annotated[int, Field(ge=0, le=1)] | None
"""None where none came."""
Microseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""JSON has no infinity, yet what reads 1e999 makes one of it."""
Count = Annotated[int, Field(ge=0)]


class NoSelfTest(VdpadError):
    """Bytes that are no result of a selftest."""


class Identity(StrictModel):
    """What was tested, with what, and when."""

    device: str
    """The name that it was asked for by."""
    parent_driver: str | None
    """The driver of the device that it was made on."""
    mgmtdev: str | None
    """The management device that it was made on."""
    kernel: str
    vdpad: str
    """vdpad's version."""
    date: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it began, in UTC."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """How long it took."""
    offered: tuple[str, ...]
    """The features that the device offers; `features` are those that were negotiated."""


class TimedAnswer(StrictModel):
    """To a command alone."""

    ack: Ack
    us: Microseconds
    """The first time."""
    p50_us: Microseconds | None
    """Of all rounds; null where none was whole."""
    p99_us: Microseconds | None


class BatchAnswer(StrictModel):
    """To a command in the batch."""

    ack: Ack
    p50_us: Microseconds | None
    """For one in a batch of its like."""
    p99_us: Microseconds | None


class TestedCommand(StrictModel):
    """A command that the features allow."""

    command: str
    arguments: str
    alone: TimedAnswer
    batch: BatchAnswer


class Total(StrictModel):
    """All commands, one by one or as a batch."""

    us: Microseconds
    doorbells: Count
    p50_us: Microseconds | None
    p99_us: Microseconds | None


class ToldCase(StrictModel):
    """A case and what it came to."""

    id: str
    title: str
    clause: str
    level: Level
    needs: tuple[str, ...]
    verdict: Verdict
    seen: tuple[str, ...]
    """What does not hold, or why it is not applicable."""


class ChangedCase(StrictModel):
    """A case that came to something else."""

    id: str
    before: Verdict
    now: Verdict


class ChangedTime(StrictModel):
    """A time that is another."""

    id: str
    """A command with its arguments, alone or "in a batch"; "alone" or "batch" for all of them."""
    before_us: Microseconds
    """p50."""
    now_us: Microseconds


class Comparison(StrictModel):
    """What is otherwise than in an earlier result."""

    device: str
    date: str
    vdpad: str
    better: tuple[ChangedCase, ...]
    worse: tuple[ChangedCase, ...]
    faster: tuple[ChangedTime, ...]
    slower: tuple[ChangedTime, ...]
    only_before: tuple[str, ...]
    """Cases that this run does not have."""
    only_now: tuple[str, ...]
    applicability: tuple[ChangedCase, ...] = ()
    """Cases that are not applicable in one of the two results, so neither better nor worse."""


class SelfTest(StrictModel):
    """What a device did, command by command and case by case, and what is to be said of it."""

    identity: Identity
    node: str | None
    """Null for a software device."""
    features: tuple[str, ...]
    """Those that were negotiated."""
    ring_size: int
    repeat: Count
    """How many rounds were timed."""
    commands: tuple[TestedCommand, ...]
    alone: Total
    batch: Total
    cases: tuple[ToldCase, ...]
    findings: tuple[str, ...]
    """What a device should not do, as sentences."""
    notes: tuple[str, ...]
    """What a restore takes no offence at."""
    comparison: Comparison | None = None
    """Only where an earlier result was given."""


def self_test_of(run: Run) -> SelfTest:
    """A run's result."""
    survey, times = run.survey, run.times
    failed = [each for each in run.cases if each.verdict is Verdict.FAIL]
    return SelfTest(
        identity=_identity(run),
        node=run.origin.node,
        features=tuple(FEATURES.names(run.features)),
        ring_size=run.ring_size,
        repeat=times.rounds,
        commands=tuple(_commands(survey.answers, times)),
        alone=_total(
            round(sum(each.alone_us for each in survey.answers), 3),
            len(survey.answers),
            times.alone,
        ),
        batch=_total(survey.batch_us, survey.batch_doorbells, times.batch),
        cases=tuple(map(_told, run.cases)),
        findings=_findings(survey.faults, failed),
        notes=survey.notes,
    )


def _identity(run: Run) -> Identity:
    return Identity(
        device=run.origin.device,
        parent_driver=run.origin.parent_driver,
        mgmtdev=run.origin.mgmtdev,
        kernel=platform.release(),
        vdpad=vdpad.__version__,
        date=_date(run.began),
        seconds=round(run.seconds, 3),
        offered=tuple(FEATURES.names(run.offered)),
    )


def _date(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _commands(answers: Sequence[CommandOutcome], times: Times) -> Iterator[TestedCommand]:
    for at, each in enumerate(answers):
        alone = _percentiles(times.commands[at] if times.rounds else None)
        in_batch = _percentiles(times.in_batches[at] if times.rounds else None)
        yield TestedCommand(
            command=each.command.NAME,
            arguments=each.command.arguments(),
            alone=TimedAnswer(ack=each.alone, us=each.alone_us, **alone),
            batch=BatchAnswer(ack=each.in_batch, **in_batch),
        )


def _percentiles(timed: Spread | None) -> dict[str, float | None]:
    """As every time is told; null where no round was whole."""
    if timed is None:
        return {"p50_us": None, "p99_us": None}
    return {"p50_us": timed.p50_us, "p99_us": timed.p99_us}


def _total(us: float, doorbells: int, timed: Spread | None) -> Total:
    return Total(us=us, doorbells=doorbells, **_percentiles(timed))


def _told(outcome: CaseOutcome) -> ToldCase:
    case = outcome.case
    return ToldCase(
        id=case.id,
        title=case.title,
        clause=case.clause,
        level=case.level,
        needs=tuple(FEATURES.names(case.needs)),
        verdict=outcome.verdict,
        seen=outcome.seen,
    )


def _findings(faults: Sequence[str], failed: Sequence[CaseOutcome]) -> tuple[str, ...]:
    broken = [f"the device broke the rules of the ring: {each}" for each in faults]
    said = [each for outcome in failed for each in outcome.seen]
    return tuple(dict.fromkeys([*broken, *said]))


def read_self_test(data: bytes) -> SelfTest:
    """A result that was printed before.

    Raises:
        NoSelfTest: it is none, or a later version's, or holds more than any.
    """
    try:
        refuse_more(data, _MOST)
        return SelfTest.model_validate_json(data)
    except NotJson as error:
        raise NoSelfTest(f"expected what `vdpactl selftest --json` printed: {error}") from error
    except ValidationError as error:
        problems = problems_of(error)
        raise NoSelfTest(
            f"expected what `vdpactl selftest --json` printed: {summary(problems)}"
        ) from error
