"""A back end's device state, from its bytes and back."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.json_schema import faults
from tests.support.states import net_state, net_states
from vdpad.state.formats import native
from vdpad.state.formats.device_state import (
    MAX_SIZE,
    StateWriter,
    bases_of,
    decode,
    encode,
    found_in,
    missing_of,
)
from vdpad.state.formats.recognise import CAPTURE, DEVICE_STATE, read
from vdpad.state.found import FormatError, Missing
from vdpad.state.model import NetState

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/devicestate.schema.json").read_text())
BODY = {key: SCHEMA[key] for key in SCHEMA if not key.startswith("$")}
WRITER = StateWriter(vdpad="1.0", back_end="net0", device="vhost-vdpa-0")
LOST = Missing("class 9", "an acknowledged command cannot be understood")

# In the order in which it is written.
SAMPLE = native.plain(net_state())

# As it stands in docs/formats.md; written by hand.
BY_HAND: dict[str, Any] = {
    "format": "vdpad-device-state",
    "version": 1,
    "writer": {"vdpad": "1.0", "back_end": "net0", "device": "vhost-vdpa-0"},
    "state": SAMPLE,
    "missing": [{"part": "class 9", "why": "an acknowledged command cannot be understood"}],
    "rings": [{"queue": 0, "base": 7}, {"queue": 8, "base": 65535}],
}


def _with(**changes: Any) -> bytes:
    return json.dumps({**BY_HAND, **changes}).encode()


def _without(*names: str) -> bytes:
    return json.dumps({key: BY_HAND[key] for key in BY_HAND if key not in names}).encode()


def test_one_that_was_written_by_hand_is_read_as_it_is_written() -> None:
    document = decode(_with())
    assert document.state is not None
    assert native.plain(document.state) == SAMPLE
    assert missing_of(document.missing) == (LOST,)
    assert bases_of(document.rings) == {0: 7, 8: 65535}
    written = encode(WRITER, document.state, (LOST,), {8: 65535, 0: 7})
    assert json.loads(written) == BY_HAND


@given(
    st.none() | net_states(),
    st.dictionaries(st.integers(0, 255), st.integers(0, 65535)),
    st.lists(st.builds(Missing, st.text(max_size=200), st.text(max_size=300)), max_size=5),
)
def test_what_is_written_comes_back_and_is_as_the_schema_has_it(
    state: NetState | None, bases: dict[int, int], missing: list[Missing]
) -> None:
    written = encode(WRITER, state, missing, bases)
    assert faults(json.loads(written), BODY, SCHEMA) == []
    document = decode(written)
    assert (document.state, bases_of(document.rings)) == (state, bases)
    assert missing_of(document.missing) == tuple(missing)


def test_people_are_told_all_of_it() -> None:
    (found,) = read(io.BytesIO(b"\n " + _with())).devices
    assert found.state is not None
    assert found.missing == (LOST,)
    assert dict(found.about) == {
        "written by": "vdpad-vhost-user 1.0, back end net0, device vhost-vdpa-0",
        "rings": "0 at 7, 8 at 65535",
    }
    assert read(io.BytesIO(_with())).format == DEVICE_STATE


def test_a_capture_is_read_as_it_was_answered() -> None:
    """docs/api.md, "The back end's control socket"."""
    captured = {key: BY_HAND[key] for key in ("state", "missing", "rings")} | {"running": True}
    reading = read(io.BytesIO(json.dumps(captured, indent=2).encode()))
    assert reading.format == CAPTURE
    (found,) = reading.devices
    assert found.state is not None
    assert native.plain(found.state) == SAMPLE
    assert found.missing == (LOST,)
    assert found.rings == ((0, 7), (8, 65535))
    nothing: dict[str, Any] = {"state": None, "missing": [], "rings": [], "running": False}
    (found,) = read(io.BytesIO(json.dumps(nothing).encode())).devices
    assert [each.code for each in found.problems] == ["absent"]
    (found,) = read(io.BytesIO(b'{"state": 1, "more": 2}')).devices
    assert {each.path for each in found.problems} >= {"state", "more", "missing"}
    with pytest.raises(FormatError, match="UTF-8 JSON"):
        read(io.BytesIO(b'{"state": '))


def test_one_without_a_guest_has_no_state() -> None:
    found = found_in(_without("state", "missing", "rings"))
    assert found.state is None
    assert [each.code for each in found.problems] == ["absent"]
    assert dict(found.about)["rings"] == "not told"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "got no byte"),
        (b"[]", "a JSON object, got list"),
        (_with(format="another"), "whose format is"),
        (_without("format"), "whose format is"),
        (_with(version=2), "version 1, got version 2, which a later vdpad wrote; update vdpad"),
        (_with(version=2, writer=3, more={}), "got version 2"),
        (_with(version=0), "version"),
        (_with(version=True), "version"),
        (_with(version=1.0), "version"),
        (_without("version"), "version"),
        (_without("writer"), "writer"),
        (_with(more=1), "no such key"),
        (_with(state=None), "state"),
        (_with(state={**SAMPLE, "version": 2}), "state.version"),
        (_with(rings=[{"queue": 256, "base": 0}]), "rings.0.queue"),
        (_with(rings=[{"queue": 0, "base": 65536}]), "rings.0.base"),
        (_with(rings=[{"queue": 1, "base": 0}] * 2), "rings.1.queue: queue 1 is there before"),
        (_with(missing=[{"part": "x", "why": ""}] * 513), "missing"),
        (_with(missing=[{"part": "x" * 201, "why": ""}]), "missing.0.part"),
        (_with()[:-1] + b', "version": 1}', "twice"),
        (_with(x=[0] * 150_000), "values"),
        (_with(**{f"x{number}": 0 for number in range(2000)}), "names in it"),
        (b'{"format":' + b" " * MAX_SIZE, f"at most {MAX_SIZE} bytes"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        decode(data)


def test_a_state_in_it_that_is_wrong_is_told_by_path() -> None:
    found = found_in(_with(state={**SAMPLE, "vlans": [5000], "mac": "x"}))
    assert found.state is None
    assert [each.path for each in found.problems] == ["state.mac", "state.vlans.0"]


def test_no_cut_one_passes_for_a_whole_one() -> None:
    data = _with()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:end])


@given(st.data())
def test_no_change_of_some_bytes_is_a_crash(data: st.DataObject) -> None:
    changed = bytearray(_with())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(FormatError):
        decode(bytes(changed))
    with contextlib.suppress(FormatError):
        read(io.BytesIO(bytes(changed)))


def test_the_longest_state_fits() -> None:
    macs = [f"02:00:{number.to_bytes(4, 'big').hex(':')}" for number in range(65_536)]
    state = NetState.model_validate_json(
        json.dumps(
            {
                "version": 1,
                "features": ["CTRL_VQ", "CTRL_RX"],
                "mac_table": {"unicast": macs},
            }
        )
    )
    assert decode(encode(WRITER, state, (), dict.fromkeys(range(256), 1))).state == state
