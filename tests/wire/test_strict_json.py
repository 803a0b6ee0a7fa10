"""JSON that Python's own reader would take, and nobody else has to."""

import pytest

from vdpad.wire.strict_json import NotJson, loads


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
