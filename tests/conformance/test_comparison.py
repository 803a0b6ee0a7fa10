"""What became better or worse."""

import pytest

from tests.conformance.results import outcome, self_test
from vdpad.conformance.case import Verdict
from vdpad.conformance.comparison import compared
from vdpad.conformance.timing import Spread


def test_the_same_is_neither_better_nor_worse() -> None:
    result = self_test(outcome("ring.full"), outcome("used.order", Verdict.NOTE, "reversed"))
    found = compared(result, result)
    assert (found.device, found.date) == ("vdpa0", "2026-11-28T09:30:00Z")
    for changed in (found.better, found.worse, found.faster, found.slower):
        assert changed == ()
    assert (found.only_before, found.only_now) == ((), ())


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (Verdict.PASS, Verdict.FAIL, "worse"),
        (Verdict.PASS, Verdict.NOTE, "worse"),
        (Verdict.NOTE, Verdict.FAIL, "worse"),
        (Verdict.FAIL, Verdict.NOTE, "better"),
        (Verdict.FAIL, Verdict.PASS, "better"),
        (Verdict.NOTE, Verdict.PASS, "better"),
        (Verdict.NOT_APPLICABLE, Verdict.FAIL, None),
        (Verdict.PASS, Verdict.NOT_APPLICABLE, None),
    ],
)
def test_a_case_is_compared_by_its_id(before: Verdict, now: Verdict, change: str | None) -> None:
    found = compared(
        self_test(outcome("ring.full", before)),
        self_test(outcome("ring.wrap"), outcome("ring.full", now)),
    )
    told = {"better": found.better, "worse": found.worse}
    changed = {how: [(each.id, each.before, each.now) for each in told[how]] for how in told}
    expected = {how: [("ring.full", before, now)] if how == change else [] for how in told}
    assert changed == expected
    assert found.only_now == ("ring.wrap",)


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.NOTE, Verdict.FAIL])
def test_a_case_that_can_be_asked_in_one_of_them_only_is_told(verdict: Verdict) -> None:
    asked = self_test(outcome("ring.full", verdict))
    not_asked = self_test(outcome("ring.full", Verdict.NOT_APPLICABLE, "without CTRL_VLAN"))
    for before, now in ((asked, not_asked), (not_asked, asked)):
        found = compared(before, now)
        (told,) = found.applicability
        assert (told.id, told.before, told.now) == (
            "ring.full",
            before.cases[0].verdict,
            now.cases[0].verdict,
        )
        assert (found.better, found.worse, found.only_before, found.only_now) == ((), (), (), ())
    assert compared(not_asked, not_asked).applicability == ()


def test_cases_that_one_of_them_does_not_have() -> None:
    found = compared(self_test(outcome("ring.full")), self_test(outcome("ring.wrap")))
    assert (found.only_before, found.only_now) == (("ring.full",), ("ring.wrap",))


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (Spread(10, 20), Spread(20, 21), None),
        (Spread(10, 20), Spread(20.1, 21), "slower"),
        (Spread(10, 11), Spread(14.9, 99), None),
        (Spread(10, 11), Spread(15.1, 16), "slower"),
        (Spread(15.1, 16), Spread(10, 11), "faster"),
        (Spread(20, 21), Spread(10, 20), None),
    ],
)
def test_times_are_another_only_where_they_are_apart(
    before: Spread, now: Spread, change: str | None
) -> None:
    found = compared(self_test(spread=before), self_test(spread=now))
    told = {"faster": found.faster, "slower": found.slower}
    changed = {how: [(each.id, each.before_us, each.now_us) for each in told[how]] for how in told}
    ids = ("VLAN_ADD vid=1", "VLAN_ADD vid=1 in a batch", "alone")
    times = [(id_, before.p50_us, now.p50_us) for id_ in ids]
    assert changed == {how: times if how == change else [] for how in told}


def test_a_batch_that_is_slower() -> None:
    found = compared(self_test(), self_test(batch=Spread(8, 9)))
    assert [(each.id, each.now_us) for each in found.slower] == [("batch", 8)]


def test_times_that_are_missing_are_no_other() -> None:
    found = compared(self_test(), self_test(spread=None))
    assert (found.slower, found.faster) == ((), ())
