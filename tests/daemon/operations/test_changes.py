"""Those that watch are told of each change, as it was, and cost nobody else anything."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import cast

import pytest

from tests.daemon.operations.shown import ME
from vdpad.daemon.operations import changes
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operation import Operation, Snapshot
from vdpad.daemon.operations.requester import Requester
from vdpad.service.refusal import Kind, Refusal


class Counted:
    """In an operation's place."""

    def __init__(self) -> None:
        self.taken = 0
        self.details = SimpleNamespace(owners=ME.owning())

    def snapshot(self) -> Snapshot:
        self.taken += 1
        return cast("Snapshot", self.taken)


def tell(told: Changes, counted: Counted, times: int = 1) -> None:
    for _ in range(times):
        told.tell(cast("Operation", counted))


async def read(given: AsyncGenerator[Snapshot], count: int) -> list[object]:
    return [await anext(given) for _ in range(count)]


async def test_each_watch_gets_each_change_as_it_was() -> None:
    told, counted = Changes(), Counted()
    with told.watched(lambda: ME) as first:
        tell(told, counted)
        with told.watched(lambda: ME) as second:
            tell(told, counted, 2)
            assert await read(first.changes(), 3) == [1, 2, 3]
            assert await read(second.changes(), 2) == [2, 3]


async def test_where_nobody_watches_nothing_is_taken() -> None:
    told, counted = Changes(), Counted()
    tell(told, counted)
    with told.watched(lambda: ME):
        tell(told, counted)
    tell(told, counted)
    assert counted.taken == 1


async def test_what_is_another_s_is_not_told() -> None:
    told, counted = Changes(), Counted()
    with told.watched(lambda: Requester(1001)) as stranger, told.watched(lambda: ME) as mine:
        tell(told, counted)
        with told.watched(lambda: Requester(1001, is_operator=True)) as operator:
            tell(told, counted)
            assert await read(operator.changes(), 1) == [2]
        told.end()
        assert await read(mine.changes(), 2) == [1, 2]
        with pytest.raises(Refusal):
            await anext(stranger.changes())


async def test_who_does_not_read_gets_what_waited_and_then_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "_MAX_WAITING", 3)
    told, counted = Changes(), Counted()
    with told.watched(lambda: ME) as watch:
        tell(told, counted, 100)
        given = watch.changes()
        assert await read(given, 3) == [1, 2, 3]
        with pytest.raises(Refusal, match="faster than they were read") as caught:
            await anext(given)
        assert caught.value.kind is Kind.OVERLOADED


async def test_with_the_daemon_all_watches_end_and_none_begins() -> None:
    told, counted = Changes(), Counted()
    with told.watched(lambda: ME) as watch:
        tell(told, counted)
        told.end()
        given = watch.changes()
        assert await read(given, 1) == [1]
        with pytest.raises(Refusal, match="stopping"):
            await anext(given)
    with told.watched(lambda: ME) as late, pytest.raises(Refusal, match="stopping"):
        await anext(late.changes())


async def test_who_may_not_watch_any_more_is_told_nothing_of_what_waits() -> None:
    told, counted = Changes(), Counted()
    allowed = [ME]

    def who() -> Requester:
        if not allowed:
            raise Refusal(Kind.NOT_ALLOWED, "not any more")
        return allowed[0]

    with told.watched(who) as watch, told.watched(lambda: ME) as other:
        tell(told, counted)
        told.ask_again()
        watch.refuse_if_revoked()
        given = watch.changes()
        assert await read(given, 1) == [1]
        tell(told, counted)
        allowed.clear()
        told.ask_again()
        tell(told, counted)
        with pytest.raises(Refusal, match="not any more"):
            watch.refuse_if_revoked()
        with pytest.raises(Refusal, match="not any more"):
            await anext(given)
        assert await read(other.changes(), 3) == [1, 2, 3]


async def test_who_is_no_operator_any_more_is_not_shown_what_others_do() -> None:
    told, counted = Changes(), Counted()
    operator, stranger = Requester(1001, is_operator=True), Requester(1001)
    now = [operator]
    with told.watched(lambda: now[0]) as watch:
        tell(told, counted)
        now[0] = stranger
        told.ask_again()
        with pytest.raises(Refusal, match="no operator any more") as caught:
            await anext(watch.changes())
        assert caught.value.kind is Kind.NOT_ALLOWED


async def test_after_a_gap_nothing_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_MAX_WAITING", 2)
    told, counted = Changes(), Counted()
    with told.watched(lambda: ME) as watch:
        tell(told, counted, 3)
        given = watch.changes()
        assert await read(given, 1) == [1]
        tell(told, counted)
        assert await read(given, 1) == [2]
        with pytest.raises(Refusal, match="faster than they were read"):
            await anext(given)
