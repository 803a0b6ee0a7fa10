"""JSON that Python's own reader would take, and nobody else has to."""

import pytest

from vdpad.wire.strict_json import Most, NotJson, loads


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 1}',
        b'[{"b": {"a": 1, "a": 2}}]',
        b"NaN",
        b'{"a": -Infinity}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"9" * 5000,
        b"\xef\xbb\xbf{}",
        b"{} {}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_strict_json_is_refused_in_a_short_sentence(data: bytes) -> None:
    with pytest.raises(NotJson, match="expected UTF-8 JSON: ") as refused:
        loads(data)
    assert len(str(refused.value)) < 150


def test_any_other_json_is_read() -> None:
    assert loads('{"a": [1, "ä", null], "b": {"a": true}}'.encode()) == {
        "a": [1, "ä", None],
        "b": {"a": True},
    }


@pytest.mark.parametrize(
    ("data", "there"),
    [
        (b"[1, 2, 3]", Most(values=3, containers=1, names=0, digits=0)),
        (b'{"a" : 1, "b"\n:\t[2, {}]}', Most(values=5, containers=3, names=2, digits=0)),
        (b'{"a,b": "[{"}', Most(values=4, containers=3, names=1, digits=0)),
    ],
)
def test_no_more_is_read_than_may_be_there(data: bytes, there: Most) -> None:
    assert loads(data, there) == loads(data)
    for what, count in there._asdict().items():
        if count:
            with pytest.raises(NotJson, match=f"at most {count - 1} {what}, got {count}"):
                loads(data, there._replace(**{what: count - 1}))


@pytest.mark.parametrize("data", [b"[" * 9, b"{" * 9, b"," * 9, b'"":' * 9, b'"" \n :' * 9])
def test_what_is_no_json_is_counted_too(data: bytes) -> None:
    with pytest.raises(NotJson, match="at most"):
        loads(data, Most(values=8, containers=8, names=8))


def test_integers_have_so_many_digits_together() -> None:
    most = Most(values=99, containers=1, names=0, digits=6400)
    integer = b"1234" * 1000
    assert loads(b"[%b, %b]" % (integer, b"8" * 2463), most)[0] == int(integer)
    with pytest.raises(NotJson, match="at most 6400 digits, got 6528"):
        loads(b"[%b, %b]" % (integer, b"8" * 2560), most)
    with pytest.raises(NotJson, match="at most 65536 digits"):
        loads(b"[%b1]" % ((integer + b",") * 20), Most(values=99, containers=1, names=0))
    # Short ones are counted as values.
    assert len(loads(b"[%b1]" % ((b"9" * 63 + b",") * 50), most._replace(digits=0))) == 51
