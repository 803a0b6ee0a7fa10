"""Results of runs that never were, for who shows, writes or compares them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from vdpad.conformance.answers import CommandOutcome, Survey
from vdpad.conformance.case import CaseOutcome, Verdict
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.device_under_test import Origin
from vdpad.conformance.self_test import SelfTest, self_test_of
from vdpad.conformance.suite import Run
from vdpad.conformance.timing import Spread, Times
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature

ANSWERED = CommandOutcome(VlanAdd(1), 0, 12.0, 0)
TEN = Spread(10.0, 20.0)
FOUR = Spread(4.0, 5.0)
ORIGIN = Origin("vdpa0", "/dev/vhost-vdpa-0", "mlx5_core", "auxiliary/mlx5_core.sf.2")


def outcome(id_: str, verdict: Verdict = Verdict.PASS, *seen: str) -> CaseOutcome:
    """What one of the suite's cases came to."""
    return CaseOutcome(CASES[id_], verdict, seen)


def self_test(
    *cases: CaseOutcome,
    answers: Sequence[CommandOutcome] = (ANSWERED,),
    spread: Spread | None = TEN,
    batch: Spread | None = FOUR,
    notes: tuple[str, ...] = (),
    faults: tuple[str, ...] = (),
) -> SelfTest:
    """A result; where nothing is said, of a device that passes, and takes 10 µs a command."""
    timed = () if spread is None else (spread,) * len(answers)
    return self_test_of(
        Run(
            origin=ORIGIN,
            began=datetime(2026, 11, 28, 9, 30, tzinfo=UTC),
            seconds=1.5,
            offered=frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.IN_ORDER}),
            features=frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN}),
            ring_size=64,
            survey=Survey(tuple(answers), 5.0, 1, faults, notes),
            cases=cases,
            times=Times(3 if timed else 0, timed, timed, spread, batch if timed else None),
        )
    )
