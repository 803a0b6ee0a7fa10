"""Calls and replies on one connection, about an interface of the tests' own."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.varlink import Json, VarlinkCaller, call
from tests.support.waiting import GUARD
from vdpad.service.endpoints.stream import StreamEndpoint
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import ConnectionCut
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.service.varlink.about import About
from vdpad.service.varlink.conversation import Varlink
from vdpad.service.varlink.interface import Interface
from vdpad.wire.streams import MAX_MESSAGE

NAME = "io.vdpad.Test"
DESCRIPTION = f"interface {NAME}\n"
ABOUT = About("us", "tests", "1", "man:none")


class Subject:
    """A service whose methods do what tests need."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: list[object] = []
        """What `Do` was asked for, in order."""
        self.refused: list[Refusal] = []
        self.events: list[Event] = []
        self.changes: asyncio.Queue[Json] = asyncio.Queue()
        self.watchers = 0
        self.go_on = asyncio.Event()
        """What those wait for who are told to."""
        interface = Interface(
            NAME,
            lambda: DESCRIPTION,
            {"Do": self._do, "Refuse": self._refuse, "Fill": self._fill, "Count": self._count},
            {"Watch": self._watch},
        )
        varlink = Varlink(ABOUT, interface, self.refused.append)
        self.endpoint = StreamEndpoint(varlink.converse, varlink.overloaded(), self.events.append)

    async def _do(self, request: Request) -> Json:
        if request.params.get("waits"):
            await self.go_on.wait()
        self.done.append(request.params.get("what"))
        return {"did": request.params.get("what")}

    async def _refuse(self, request: Request) -> Json:
        kind = Kind(request.params["kind"])
        raise Refusal(kind, "a sentence", **request.params["data"])

    async def _fill(self, request: Request) -> Json:
        return {"filled": "x" * request.params["bytes"]}

    async def _count(self, request: Request) -> Json:
        peer = request.peer
        return {"fds": len(peer.fds), "too_many": peer.too_many_fds, "uid": peer.uid}

    async def _watch(self, request: Request) -> AsyncGenerator[Json]:
        self.watchers += 1
        try:
            while True:
                change = await self.changes.get()
                if change.get("end"):
                    raise Refusal(Kind.OVERLOADED, "that is all")
                yield change
        finally:
            self.watchers -= 1


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    with no_descriptor_left():
        made = Subject(tmp_path / "socket")
        made.endpoint.listen(made.path, 0o600, None)
        yield made
        await made.endpoint.close()


@pytest.fixture
def fd() -> Iterator[int]:
    """A descriptor to send."""
    made = os.memfd_create("sent")
    yield made
    os.close(made)


@pytest.fixture
async def caller(subject: Subject) -> AsyncIterator[VarlinkCaller]:
    with VarlinkCaller(subject.path, NAME) as each:
        yield each


# --- calls ---


async def test_calls_on_one_connection_are_answered_in_order_and_hold_up_no_other(
    subject: Subject, caller: VarlinkCaller
) -> None:
    await caller.send(call(f"{NAME}.Do", what="slow", waits=True) + call(f"{NAME}.Do", what="fast"))
    with VarlinkCaller(subject.path, NAME) as other:
        assert await other.call("Do", what="other") == {"did": "other"}
    assert subject.done == ["other"]
    subject.go_on.set()
    replies = [await caller.reply() for _ in range(2)]
    assert [each["parameters"]["did"] for each in replies] == ["slow", "fast"]
    assert subject.done == ["other", "slow", "fast"]


async def test_a_oneway_call_is_done_and_not_answered(
    subject: Subject, caller: VarlinkCaller
) -> None:
    await caller.send(call(f"{NAME}.Do", "oneway", what=1))
    await caller.send(call(f"{NAME}.Refuse", "oneway", kind="busy", data={}))
    await caller.send(call(f"{NAME}.Nothing", "oneway"))
    assert await caller.call("Do", what=2) == {"did": 2}
    assert subject.done == [1, 2]


async def test_more_of_a_method_that_has_one_reply_is_one(caller: VarlinkCaller) -> None:
    await caller.send(call(f"{NAME}.Do", "more", what=1))
    assert await caller.reply() == {"parameters": {"did": 1}}


async def test_descriptors_come_with_their_call(caller: VarlinkCaller, fd: int) -> None:
    told = await caller.call("Count", [fd, fd])
    assert (told["fds"], told["too_many"]) == (2, False)
    assert (await caller.call("Count", [fd] * 5))["too_many"]
    assert (await caller.call("Count"))["fds"] == 0


# --- errors ---


@pytest.mark.parametrize(
    ("kind", "data", "name"),
    [
        ("conflict", {"digest": "x"}, f"{NAME}.Conflict"),
        ("no-such-migration", {}, f"{NAME}.NoSuchMigration"),
        ("invalid-request", {}, f"{NAME}.InvalidRequest"),
    ],
)
async def test_a_refusal_is_an_error_by_its_kind(
    caller: VarlinkCaller, kind: str, data: Json, name: str
) -> None:
    told = await caller.error("Refuse", kind=kind, data=data)
    assert told == (name, {"message": "a sentence", **data})


async def test_wrong_parameters_are_varlink_s_own_error(caller: VarlinkCaller) -> None:
    problems = [{"path": "state.mac", "code": "mac", "message": "none"}]
    told = await caller.error("Refuse", kind="invalid-params", data={"problems": problems})
    assert told == (
        "org.varlink.service.InvalidParameter",
        {"parameter": "state", "message": "a sentence", "problems": problems},
    )


@pytest.mark.parametrize(
    ("message", "error", "parameters"),
    [
        (call(f"{NAME}.Nothing"), "MethodNotFound", {"method": f"{NAME}.Nothing"}),
        (call("io.vdpad.Do"), "InterfaceNotFound", {"interface": "io.vdpad"}),
        (call(f"{NAME}.Watch"), "ExpectedMore", {}),
        (call(f"{NAME}.Do", "upgrade"), "MethodNotImplemented", {"method": f"{NAME}.Do"}),
    ],
)
async def test_what_is_not_there_to_be_called_is_told(
    subject: Subject, caller: VarlinkCaller, message: bytes, error: str, parameters: Json
) -> None:
    await caller.send(message)
    reply = await caller.reply()
    assert reply == {"error": f"org.varlink.service.{error}", "parameters": parameters}
    assert [each.kind for each in subject.refused] == [Kind.METHOD_NOT_FOUND]
    assert await caller.call("Do", what=1)


@pytest.mark.parametrize(
    ("message", "name"),
    [(b"x\0", "ParseError"), (b"[]\0", "InvalidRequest"), (b"\0", "ParseError")],
)
async def test_what_is_no_call_ends_the_connection_with_an_error(
    subject: Subject, caller: VarlinkCaller, fd: int, message: bytes, name: str
) -> None:
    await caller.send(message + call(f"{NAME}.Do", what=1), [fd])
    reply = await caller.reply()
    assert reply["error"] == f"{NAME}.{name}"
    with pytest.raises(EOFError):
        await caller.reply()
    assert subject.done == []
    assert len(subject.refused) == 1


async def test_a_message_that_is_too_long_ends_the_connection_with_an_error(
    subject: Subject, caller: VarlinkCaller
) -> None:
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        await caller.send(b"x" * (2 * MAX_MESSAGE))
    assert (await caller.reply())["error"] == f"{NAME}.InvalidRequest"
    (event,) = subject.events
    assert isinstance(event, ConnectionCut)
    assert str(MAX_MESSAGE) in event.reason


async def test_a_reply_that_is_too_long_is_told(caller: VarlinkCaller) -> None:
    name, parameters = await caller.error("Fill", bytes=MAX_MESSAGE)
    assert name == f"{NAME}.Internal"
    assert "the request was carried out" in parameters["message"]
    assert len((await caller.call("Fill", bytes=MAX_MESSAGE - 100))["filled"]) == MAX_MESSAGE - 100


# --- series ---


async def test_a_series_goes_on_until_it_ends(subject: Subject, caller: VarlinkCaller) -> None:
    await caller.send(call(f"{NAME}.Watch", "more"))
    for number in range(3):
        subject.changes.put_nowait({"number": number})
        assert await caller.reply() == {"parameters": {"number": number}, "continues": True}
    subject.changes.put_nowait({"end": True})
    reply = await caller.reply()
    assert reply["error"] == f"{NAME}.Overloaded"
    assert "continues" not in reply
    assert await caller.call("Do", what=1)


@pytest.mark.parametrize("ahead", [b"", b"something ahead\0"])
async def test_a_series_ends_when_its_caller_hangs_up(subject: Subject, ahead: bytes) -> None:
    with VarlinkCaller(subject.path, NAME) as caller:
        await caller.send(call(f"{NAME}.Watch", "more") + ahead)
        subject.changes.put_nowait({"number": 1})
        await caller.reply()
        assert subject.watchers == 1
    async with asyncio.timeout(GUARD):
        while True:
            if not subject.watchers:
                break
            await asyncio.sleep(0.001)


async def test_a_series_goes_on_for_who_only_sends_no_more(
    subject: Subject, caller: VarlinkCaller
) -> None:
    await caller.send(call(f"{NAME}.Watch", "more"))
    caller.socket.shutdown(socket.SHUT_WR)
    for number in range(2):
        subject.changes.put_nowait({"number": number})
        assert (await caller.reply())["parameters"] == {"number": number}
    subject.changes.put_nowait({"end": True})


# --- about itself ---


async def test_the_service_says_what_it_is(subject: Subject) -> None:
    with VarlinkCaller(subject.path, "org.varlink.service") as caller:
        assert await caller.call("GetInfo") == {
            "vendor": "us",
            "product": "tests",
            "version": "1",
            "url": "man:none",
            "interfaces": [NAME, "org.varlink.service"],
        }
        told = await caller.call("GetInterfaceDescription", interface=NAME)
        assert told == {"description": DESCRIPTION}
        told = await caller.call("GetInterfaceDescription", interface="org.varlink.service")
        assert "method GetInfo() -> (" in told["description"]


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("GetInterfaceDescription", {"interface": "a.b"}, "InterfaceNotFound"),
        ("GetInterfaceDescription", {"interface": 1}, "InvalidParameter"),
        ("GetInterfaceDescription", {}, "InvalidParameter"),
        ("GetInterfaceDescription", {"interface": NAME, "x": 1}, "InvalidParameter"),
        ("GetInfo", {"x": 1}, "InvalidParameter"),
    ],
)
async def test_wrong_questions_about_it_are_refused(
    subject: Subject, method: str, parameters: Json, error: str
) -> None:
    with VarlinkCaller(subject.path, "org.varlink.service") as caller:
        name, _ = await caller.error(method, **parameters)
    assert name == f"org.varlink.service.{error}"


# --- those who ask on and on ---


async def test_who_sends_calls_without_end_leaves_others_their_turn(subject: Subject) -> None:
    loop = asyncio.get_running_loop()
    with VarlinkCaller(subject.path, NAME) as flood, VarlinkCaller(subject.path, NAME) as other:
        calls = call(f"{NAME}.Do", "oneway", what="flood") * 1000

        async def send_on() -> None:
            while True:
                await loop.sock_sendall(flood.socket, calls)

        sending = asyncio.create_task(send_on())
        for number in range(20):
            assert await other.call("Do", what=number) == {"did": number}
        sending.cancel()
    assert subject.done.count("flood") < 20_000


async def test_who_does_not_read_is_not_answered_further(subject: Subject) -> None:
    with VarlinkCaller(subject.path, NAME) as deaf:
        await deaf.send(call(f"{NAME}.Fill", bytes=1 << 20) + call(f"{NAME}.Do", what="next"))
        with VarlinkCaller(subject.path, NAME) as other:
            assert await other.call("Do", what="other")
        assert subject.done == ["other"]
