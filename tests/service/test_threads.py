"""Calls on threads: what came of them, and what becomes of them where there is no thread."""

import threading

import pytest

from tests.support.no_means import no_threads
from tests.support.waiting import until
from vdpad.service.threads import OwnThread, give_back, on_a_thread
from vdpad.wire.user_threads import NoThread


async def test_what_is_not_begun_is_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    with monkeypatch.context() as patch:
        no_threads(patch)
        with pytest.raises(NoThread, match="TasksMax"):
            on_a_thread(lambda: done.append("first"), "test")
    await on_a_thread(lambda: done.append("second"), "test")
    assert done == ["second"]


async def test_what_is_given_back_is_given_back_on_a_thread() -> None:
    where: list[int] = []
    await give_back(lambda: where.append(threading.get_ident()), "test")
    assert where != [threading.get_ident()]


async def test_or_else_here(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []
    no_threads(monkeypatch)
    await give_back(lambda: where.append(threading.get_ident()), "test")
    assert where == [threading.get_ident()]


async def test_a_thread_of_one_s_own_makes_all_calls_in_order_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = OwnThread("own thread")
    no_threads(monkeypatch)
    done: list[int] = []
    calls = [own.run(lambda each=each: done.append(each)) for each in range(3)]  # type: ignore[misc]
    failing = own.run(lambda: 1 // 0)
    own.end()
    for call in calls:
        await call
    assert done == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        await failing
    await until(lambda: all(each.name != "own thread" for each in threading.enumerate()))
