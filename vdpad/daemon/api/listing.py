"""What `status` gives without a migration, and what `watch` begins with."""

from collections.abc import Iterable, Iterator, Sequence

from vdpad.daemon.api.params import StatusParams, WatchParams
from vdpad.daemon.api.results import OperationsResult, SummaryResult
from vdpad.daemon.operations.operation import Operation, Snapshot
from vdpad.daemon.operations.transitions import State
from vdpad.service.refusal import Kind, Refusal

# A reply is bounded too; the envelope, the brackets and `total` take some of it.
_ENVELOPE = 4096


def listed(newest_first: Sequence[Operation], params: StatusParams, room: int) -> OperationsResult:
    """As many summaries as are asked for and fit, and how many match.

    Args:
        newest_first: all operations.
        params: without a migration.
        room: what a reply may have, in bytes.

    Raises:
        Refusal: no-such-migration: the one that those listed come behind is not known.
    """
    matching = [each for each in newest_first if is_in(each, params.states)]
    behind = newest_first if params.after is None else _behind(params.after, newest_first)
    shown = (SummaryResult.of(each.snapshot()) for each in behind if is_in(each, params.states))
    return OperationsResult(
        operations=tuple(_fitting(shown, params.limit, room - _ENVELOPE)), total=len(matching)
    )


def begun_with(newest_first: Sequence[Operation], params: WatchParams) -> Sequence[Snapshot]:
    """What there is when somebody begins to watch, oldest first."""
    there = [each for each in newest_first if is_in(each, params.states)]
    return [each.snapshot() for each in reversed(there)]


def is_in(operation: Operation, states: Sequence[State] | None) -> bool:
    """Whether it is in one of some states; None are all."""
    return states is None or operation.state in states


def _behind(migration: str, newest_first: Sequence[Operation]) -> Sequence[Operation]:
    for at, each in enumerate(newest_first):
        if each.migration == migration:
            return newest_first[at + 1 :]
    raise Refusal(
        Kind.NO_SUCH_MIGRATION,
        "after: nothing is known of this migration any more; list from the newest on",
    )


def _fitting(shown: Iterable[SummaryResult], limit: int, room: int) -> Iterator[SummaryResult]:
    for number, each in enumerate(shown):
        room -= len(each.model_dump_json(ensure_ascii=True)) + 1
        if number == limit or room < 0:
            return
        yield each
