"""Varlink's messages, and what is none."""

import contextlib

import pytest

from vdpad.wire.datagrams import MAX_DATAGRAM
from vdpad.wire.strict_json import NotJson
from vdpad.wire.varlink import Call, CallReply, NoCall, pull_call, pull_reply, push_call, push_reply

METHOD = "io.vdpad.Daemon.Check"


@pytest.mark.parametrize(
    "call",
    [
        Call(METHOD),
        Call(METHOD, {"a": [1, {"b": "c"}]}),
        Call(METHOD, more=True),
        Call(METHOD, oneway=True),
        Call(METHOD, upgrade=True),
    ],
)
def test_a_call_is_pulled_as_it_was_pushed(call: Call) -> None:
    assert pull_call(push_call(call)) == call


@pytest.mark.parametrize(
    "reply",
    [
        CallReply({}),
        CallReply({"a": None}, continues=True),
        CallReply({"message": "x"}, "io.vdpad.Daemon.Conflict"),
    ],
)
def test_a_reply_is_pulled_as_it_was_pushed(reply: CallReply) -> None:
    assert pull_reply(push_reply(reply)) == reply


def test_a_method_is_an_interface_s() -> None:
    assert (Call(METHOD).interface, Call(METHOD).name) == ("io.vdpad.Daemon", "Check")


def test_what_is_left_out_may_be_null_as_well() -> None:
    pulled = pull_call(
        b'{"method":"a.b.C","parameters":{"x":null,"y":[{"z":null}]},"more":null,"oneway":null}'
    )
    assert pulled == Call("a.b.C", {"y": [{}]})
    assert pull_call(b'{"method":"a.b.C","parameters":null}') == Call("a.b.C")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[]", "expected an object, got list"),
        (b"{}", "method: expected"),
        (b'{"method":1}', "method: expected"),
        (b'{"method":"Info"}', "method: expected"),
        (b'{"method":"a.b.C","parameters":[]}', "parameters: expected an object"),
        (b'{"method":"a.b.C","more":1}', "more: expected true or false"),
        (b'{"method":"a.b.C","oneway":"true"}', "oneway: expected true or false"),
        (b'{"method":"a.b.C","more":true,"oneway":true}', "at most one of"),
        (b'{"method":"a.b.C","id":1}', "expected no keys but"),
        (
            b'{"method":"a.b.C","parameters":' + b'{"a":' * 900 + b"null" + b"}" * 900 + b"}",
            "fewer",
        ),
    ],
)
def test_what_is_json_and_no_call_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(NoCall, match=why):
        pull_call(data)


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        (b"1," * 102_400, "102400 values"),
        (b"{}," * 51_200, "102400 values"),
        (b"[]," * 16_400, "16384 containers"),
        (b'{"":1},' * 25_601, "16384 containers"),
        (b'{"a":1,"b":2},' * 12_801, "25600 names"),
    ],
)
@pytest.mark.parametrize("padding", [0, MAX_DATAGRAM])
def test_a_message_holds_no_more_than_any_request(inside: bytes, why: str, padding: int) -> None:
    with pytest.raises(NotJson, match=f"expected JSON of at most {why}"):
        pull_call(b'{"method":"a.b.C","parameters":{"x":[%b1]}%b}' % (inside, b" " * padding))


def test_colons_in_strings_are_no_names() -> None:
    """A table of 65536 addresses is a valid part of a state."""
    macs = ",".join(f'"02:00:{at.to_bytes(4, "big").hex(":")}"' for at in range(65_536))
    message = f'{{"method":"a.b.C","parameters":{{"unicast":[{macs}]}}}}'
    assert len(pull_call(message.encode()).parameters["unicast"]) == 65_536


@pytest.mark.parametrize("inside", [b"1," * 102_300, b'"x":"' + b"x" * 4_000_000 + b'",'])
def test_a_long_message_is_taken_as_long_as_it_does_not(inside: bytes) -> None:
    if not inside.startswith(b'"'):
        inside = b'"x":[%b1],' % inside
    assert pull_call(b'{"method":"a.b.C","parameters":{%b"y":1}}' % inside).parameters["y"] == 1


@pytest.mark.parametrize("depth", [300, 900, 5_000, 100_000])
def test_however_deep_it_nests_it_is_taken_or_refused(depth: int) -> None:
    nested = b'{"a":' * depth + b"null" + b"}" * depth
    with contextlib.suppress(NoCall, NotJson):
        assert pull_call(b'{"method":"a.b.C","parameters":%b}' % nested).parameters.keys() == {"a"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff",
        b'{"method":"a.b.C"',
        b'{"method":"a.b.C","method":"a.b.D"}',
        b'{"method":"a.b.C","parameters":{"a":1,"a":1}}',
        b'{"method":"a.b.C","parameters":{"a":NaN}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(NotJson):
        pull_call(data)


@pytest.mark.parametrize(
    "data", [b"[]", b'{"error":1}', b'{"continues":1}', b'{"result":{}}', b'{"parameters":1}']
)
def test_what_is_json_and_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(NoCall):
        pull_reply(data)
