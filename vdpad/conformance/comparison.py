"""What became better or worse since an earlier result, case by case and time by time.

Times of one device differ from run to run. One is called slower where more than half of this run's
times are above all but a hundredth of the earlier ones, and by half of it and more; faster is the
same the other way round.
"""

from collections.abc import Iterator, Mapping

from vdpad.conformance.case import Verdict
from vdpad.conformance.self_test import (
    BatchAnswer,
    ChangedCase,
    ChangedTime,
    Comparison,
    SelfTest,
    TimedAnswer,
    Total,
)
from vdpad.conformance.timing import Spread

_MUCH = 1.5

# What is not applicable is neither better nor worse than anything, and told by itself.
_RANKS = {Verdict.FAIL: 0, Verdict.NOTE: 1, Verdict.PASS: 2}


def compared(before: SelfTest, now: SelfTest) -> Comparison:
    """What `now` has otherwise than `before`."""
    old = {each.id: each.verdict for each in before.cases}
    new = {each.id: each.verdict for each in now.cases}
    old_times, new_times = dict(_times(before)), dict(_times(now))
    all_changed = list(_changed(old, new))
    changed = [each for each in all_changed if each.before in _RANKS and each.now in _RANKS]
    return Comparison(
        device=before.identity.device,
        date=before.identity.date,
        vdpad=before.identity.vdpad,
        better=tuple(each for each in changed if _RANKS[each.now] > _RANKS[each.before]),
        worse=tuple(each for each in changed if _RANKS[each.now] < _RANKS[each.before]),
        faster=tuple(_slower(new_times, old_times, swapped=True)),
        slower=tuple(_slower(old_times, new_times)),
        only_before=tuple(each for each in old if each not in new),
        only_now=tuple(each for each in new if each not in old),
        applicability=tuple(each for each in all_changed if each not in changed),
    )


def _changed(old: Mapping[str, Verdict], new: Mapping[str, Verdict]) -> Iterator[ChangedCase]:
    for id_, now in new.items():
        before = old.get(id_)
        if before is not None and before is not now:
            yield ChangedCase(id=id_, before=before, now=now)


def _times(result: SelfTest) -> Iterator[tuple[str, Spread]]:
    """Every time that was measured, by its id."""
    timed: list[tuple[str, TimedAnswer | BatchAnswer | Total]] = []
    for each in result.commands:
        name = f"{each.command} {each.arguments}".strip()
        timed += [(name, each.alone), (f"{name} in a batch", each.batch)]
    timed += [("alone", result.alone), ("batch", result.batch)]
    for id_, told in timed:
        if told.p50_us is not None and told.p99_us is not None:
            yield id_, Spread(told.p50_us, told.p99_us)


def _slower(
    before: Mapping[str, Spread], now: Mapping[str, Spread], *, swapped: bool = False
) -> Iterator[ChangedTime]:
    """Those of `now` that are slower; swapped where `now` is the earlier result."""
    for id_, was in before.items():
        times = now.get(id_)
        if times is None or times.p50_us <= max(was.p99_us, _MUCH * was.p50_us):
            continue
        first, last = (times, was) if swapped else (was, times)
        yield ChangedTime(id=id_, before_us=first.p50_us, now_us=last.p50_us)
