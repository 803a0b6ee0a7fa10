"""Answering: what is raised around a method is told, counted and becomes a refusal."""

import errno
import os

import pytest

from vdpad.service.answering import Answering, SenderNotAllowed, refuse_unknown_uid
from vdpad.service.events.event import CALLER, Event
from vdpad.service.events.kinds import InternalError, NotAllowed
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.wire.datagrams import Peer
from vdpad.wire.user_threads import NoThread


def refusal_of(error: BaseException) -> Refusal | None:
    return error if isinstance(error, Refusal) else None


def request_of(uid: int = 7, method: str = "info") -> Request:
    return Request(method, {}, None, Peer(None, 42, uid, uid, []), 0)


def no_event(_: Refusal) -> Event | None:
    return None


def answering() -> tuple[Answering, list[Event]]:
    told: list[Event] = []
    return Answering(("info", "check"), refusal_of, told.append), told


async def test_a_refusal_is_counted_and_told_as_it_is_said_to_be() -> None:
    one, told = answering()
    event = NotAllowed("info", "since")
    with pytest.raises(Refusal) as raised, one.refusing(request_of(), lambda _: event):
        raise SenderNotAllowed("no")
    assert raised.value.kind is Kind.NOT_ALLOWED
    assert told == [event]
    assert one.counts == {("info", "not-allowed"): 1}


async def test_another_error_is_ours_and_nothing_of_it_is_answered() -> None:
    one, told = answering()
    error = RuntimeError("a secret")
    with pytest.raises(Refusal) as raised, one.refusing(request_of(), no_event):
        raise error
    assert raised.value.kind is Kind.INTERNAL
    assert "secret" not in str(raised.value)
    assert told == [InternalError(42, error)]
    assert one.counts == {("info", "internal"): 1}


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(each, os.strerror(each)) for each in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
        MemoryError(),
        NoThread("no thread"),
    ],
    ids=repr,
)
async def test_what_the_system_gives_no_more_of_is_no_fault_of_ours(error: Exception) -> None:
    one, told = answering()
    with pytest.raises(Refusal) as raised, one.refusing(request_of(), no_event):
        raise error
    assert raised.value.kind is Kind.OVERLOADED
    assert told == []


def test_what_is_no_method_is_counted_under_one_name() -> None:
    one, _ = answering()
    for name in ("made up", None, 7):
        one.refused(Refusal(Kind.METHOD_NOT_FOUND, ""), name)
    one.done("check")
    assert one.counts == {("unknown", "method-not-found"): 3, ("check", "ok"): 1}


async def test_what_is_told_meanwhile_is_told_as_of_the_sender() -> None:
    one, _ = answering()
    with one.refusing(request_of(uid=1234), no_event):
        assert CALLER.get() == 1234


def test_only_those_who_may_speak_do_and_a_seal_is_enough() -> None:
    refuse_unknown_uid(None, request_of(uid=9).peer, "x")
    refuse_unknown_uid({9}, request_of(uid=9).peer, "x")
    refuse_unknown_uid({9}, Peer(None, 0, -1, -1, [], sealed=True), "x")
    with pytest.raises(SenderNotAllowed, match=r"uid 8 .* --who"):
        refuse_unknown_uid({9}, request_of(uid=8).peer, "option --who")
