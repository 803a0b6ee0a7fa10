"""Sealed datagrams: what opens, and what is refused for which reason.

The other side of each is the `cryptography` package's own Fernet, as an independent client has it.
"""

import base64
import itertools
import json
import os
import tracemalloc

import pytest
from cryptography.fernet import Fernet, MultiFernet
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.marks import in_bulk
from tests.wire.gates import KEY as NEW
from tests.wire.gates import START, TTL, Clock, fresh_memory, gate_of, memory_of_long_ago, sealed
from vdpad.wire.admitted import MAX_ADMITTED
from vdpad.wire.sealing import (
    MAX_SKEW,
    MAX_TEXT,
    MAX_TOKEN,
    Gate,
    NotOpened,
    Reason,
    Sealer,
    is_reply,
)

OLD, OTHER = Fernet.generate_key(), Fernet.generate_key()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return new_gate(clock)


def new_gate(clock: Clock | None = None, places: int = 100) -> Gate:
    """One of a daemon that has run for long, and had nothing to let in."""
    clock = clock or Clock()
    return gate_of(clock, memory_of_long_ago(clock, places), Sealer([NEW, OLD]))


def reason(gate: Gate, token: bytes) -> Reason:
    """Why a token is not let in."""
    with pytest.raises(NotOpened) as caught:
        gate.admit(token)
    assert str(caught.value)
    return caught.value.reason


# --- keys ---


def test_the_first_key_seals_and_all_open() -> None:
    sealer = Sealer([NEW, OLD])
    assert Fernet(NEW).decrypt(sealer.seal(b"text")) == b"text"
    for key in (OLD, NEW):
        assert sealer.open(Fernet(key).encrypt(b"text")) == b"text"
    with pytest.raises(NotOpened) as caught:
        sealer.open(Fernet(OTHER).encrypt(b"text"))
    assert caught.value.reason is Reason.WRONG_KEY


def test_each_sealing_is_another_token() -> None:
    sealer = Sealer([NEW])
    assert len({sealer.seal(b"text") for _ in range(50)}) == 50


def test_keys_are_changed_without_a_moment_of_misunderstanding() -> None:
    """As vdpad/wire/keys.py says: the two ends change one after the other, in any order."""
    steps = ([OLD], [OLD, NEW], [NEW, OLD], [NEW])
    for before, after in itertools.pairwise(steps):
        for one, other in ((before, after), (after, before), (after, after)):
            assert Sealer(other).open(Sealer(one).seal(b"text")) == b"text"


def test_what_was_seen_stays_seen_when_keys_change(gate: Gate) -> None:
    token = sealed(key=OLD)
    gate.admit(token)
    gate.sealer = Sealer([OTHER, OLD])
    assert reason(gate, token) is Reason.REPLAYED
    assert reason(gate, sealed(key=NEW)) is Reason.WRONG_KEY
    gate.admit(sealed(key=OTHER))


# --- sizes ---


def test_the_longest_text_goes_and_a_longer_one_does_not(gate: Gate) -> None:
    token = sealed(b"x" * MAX_TEXT)
    assert len(token) == MAX_TOKEN <= 65507
    assert gate.admit(token) == b"x" * MAX_TEXT
    assert len(Sealer([NEW]).seal(b"x" * MAX_TEXT)) == MAX_TOKEN
    longer = sealed(b"x" * (MAX_TEXT + 1))
    assert len(longer) > MAX_TOKEN
    assert reason(gate, longer) is Reason.TOO_LONG
    with pytest.raises(ValueError, match=str(MAX_TEXT)):
        Sealer([NEW]).seal(b"x" * (MAX_TEXT + 1))


def test_a_text_may_be_empty(gate: Gate) -> None:
    assert gate.admit(sealed(b"")) == b""


@pytest.mark.parametrize("size", [0, 15, 16, 100, 2846])
def test_a_token_cut_anywhere_is_refused(gate: Gate, size: int) -> None:
    token = sealed(os.urandom(size))
    reasons = [reason(gate, token[:length]) for length in range(len(token))]
    assert set(reasons[:12]) == {Reason.FOREIGN}
    # Cut by whole blocks it looks whole, and only its HMAC says that it is not.
    assert set(reasons[12:]) <= {Reason.TRUNCATED, Reason.FOREIGN, Reason.WRONG_KEY}
    assert reasons.count(Reason.TRUNCATED) > 0.7 * (len(token) - 12)
    assert gate.admit(token)[:0] == b""


def test_a_token_of_no_ciphertext_is_refused(gate: Gate) -> None:
    raw = base64.urlsafe_b64decode(sealed())
    for length in (9, 25, 57):
        assert reason(gate, base64.urlsafe_b64encode(raw[:length])) is Reason.TRUNCATED


# --- time ---


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-MAX_SKEW - 1, Reason.EARLY),
        (-MAX_SKEW, None),
        (-1, None),
        (0, None),
        (TTL, None),
        (TTL + 1, Reason.EXPIRED),
        (1000, Reason.EXPIRED),
        (-(10**9), Reason.EARLY),
    ],
)
def test_a_token_is_let_in_in_its_time(
    gate: Gate, clock: Clock, age: int, expected: Reason | None
) -> None:
    clock.now += 10_000.9
    token = sealed(at=int(clock.now) - age)
    if expected is None:
        assert gate.admit(token) == b"{}"
    else:
        assert reason(gate, token) is expected


def test_the_time_of_the_token_is_held_against_alteration(gate: Gate, clock: Clock) -> None:
    raw = bytearray(base64.urlsafe_b64decode(sealed(at=START)))
    clock.now += TTL + 1
    raw[1:9] = int(clock.now).to_bytes(8, "big")
    assert reason(gate, base64.urlsafe_b64encode(raw)) is Reason.WRONG_KEY


def test_what_an_earlier_daemon_may_have_let_in_and_nobody_remembers_is_refused(
    clock: Clock,
) -> None:
    """Up to the moment when this one began to remember, and by a clock that was ahead."""
    gate = gate_of(clock, fresh_memory())
    for age in (1, 0, -1, -MAX_SKEW):
        assert reason(gate, sealed(at=START - age)) is Reason.EXPIRED
    clock.now += 0.5
    assert reason(gate, sealed(at=START + MAX_SKEW)) is Reason.EXPIRED
    clock.now += 0.5
    assert gate.admit(sealed(at=START + MAX_SKEW + 1)) == b"{}"


def test_the_next_daemon_knows_what_was_let_in(clock: Clock) -> None:
    """Also what was sealed in the second of its start, and ahead of its clock."""
    memory = memory_of_long_ago(clock)
    gate = gate_of(clock, memory)
    before = [sealed(at=START + ahead) for ahead in (-TTL, -1, 0, 1, MAX_SKEW)]
    for token in before:
        gate.admit(token)
    for _ in range(3):
        gate = gate_of(clock, memory)
        assert {reason(gate, token) for token in before} == {Reason.REPLAYED}
        for ahead in (-TTL, -1, 0, 1, MAX_SKEW):
            before.append(sealed(at=START + ahead))
            gate.admit(before[-1])


def test_a_clock_set_back_lets_nothing_in_twice(clock: Clock) -> None:
    gate = new_gate(clock, places=2)
    token = sealed()
    gate.admit(token)
    clock.now += TTL + 100
    gate.admit(sealed(at=clock.now))
    clock.step(START + 1 - clock.now)
    assert reason(gate, token) is Reason.REPLAYED
    clock.step(TTL + 99)
    assert gate.admit(sealed(at=clock.now)) == b"{}"
    # Its place was needed.
    clock.step(START + 1 - clock.now)
    assert reason(gate, token) is Reason.EXPIRED
    assert reason(gate, sealed(at=START)) is Reason.EXPIRED


@pytest.mark.parametrize("ahead", [60, 3600, 365 * 24 * 3600])
def test_a_clock_that_was_ahead_shuts_nobody_out(clock: Clock, ahead: int) -> None:
    """However far, with senders by the same clock, and over a restart."""
    memory = memory_of_long_ago(clock)
    gate = gate_of(clock, memory)
    tokens = [sealed()]
    gate.admit(tokens[0])
    clock.step(ahead)
    for _ in range(2 * TTL):
        clock.now += 1
        tokens.append(sealed(at=clock.now))
        gate.admit(tokens[-1])
    assert reason(gate, sealed(at=clock.now - ahead)) is Reason.EXPIRED
    clock.step(-ahead)
    for each in (gate, gate_of(clock, memory)):
        assert each.admit(sealed(at=clock.now)) == b"{}"
    clock.step(ahead)
    assert {reason(gate, token) for token in tokens} == {Reason.REPLAYED, Reason.EXPIRED}


def test_a_start_while_the_clock_is_wrong_shuts_nobody_out(clock: Clock) -> None:
    """Where nothing is remembered, too: when that began is told right by a clock put right."""
    clock.step(3600)
    gate = gate_of(clock, fresh_memory())
    clock.now += MAX_SKEW + 1
    gate.admit(sealed(at=clock.now))
    clock.step(-3600)
    gate.admit(sealed(at=clock.now))
    clock.step(-1)
    assert reason(gate, sealed(at=START + MAX_SKEW - 1)) is Reason.EXPIRED


def test_a_client_asks_no_clock() -> None:
    assert Sealer([NEW]).open(sealed(at=5)) == b"{}"
    assert Sealer([NEW]).open(sealed(at=2**40)) == b"{}"


# --- replays ---


def test_a_token_is_let_in_once_through_all_its_time(gate: Gate, clock: Clock) -> None:
    clock.now += 500
    ahead = sealed(at=clock.now + MAX_SKEW)
    gate.admit(ahead)
    for _ in range(MAX_SKEW + TTL):
        assert reason(gate, ahead) is Reason.REPLAYED
        gate.admit(sealed(at=clock.now))
        clock.now += 1
    assert reason(gate, ahead) is Reason.REPLAYED
    clock.now += 1
    assert reason(gate, ahead) is Reason.EXPIRED


def test_a_replay_in_another_spelling_is_one(gate: Gate) -> None:
    """One token has many texts that Fernet takes: it skips what is no base64."""
    token = sealed(b"x" * 20)
    assert token.endswith(b"=")
    gate.admit(token)
    filler = base64.urlsafe_b64encode(os.urandom(48))
    no_base64 = [
        token[:50] + b"!!!!" + token[50:],
        token[:50] + b"\r\n\r\n" + token[50:],
        token + b"====",
        token + filler,
        b"    " + token,
    ]
    spellings = [
        *no_base64,
        token.translate(bytes.maketrans(b"-_", b"+/")),
        *(token.rstrip(b"=")[:-1] + bytes([other]) + b"=" for other in b"ABCDQRgw0_-"),
    ]
    assert sum(_fernet_takes(each) for each in spellings) >= 5
    for spelling in spellings:
        assert reason(gate, spelling) in {
            Reason.REPLAYED,
            Reason.FOREIGN,
            Reason.TRUNCATED,
            Reason.WRONG_KEY,
        }
    assert {reason(new_gate(), each) for each in no_base64} == {Reason.FOREIGN}


def _fernet_takes(token: bytes) -> bool:
    try:
        Fernet(NEW).decrypt(token)
    except Exception:
        return False
    return True


def test_one_text_may_be_sealed_often(gate: Gate) -> None:
    for _ in range(20):
        assert gate.admit(sealed(b"the same")) == b"the same"


def test_what_does_not_open_is_not_remembered(clock: Clock) -> None:
    gate = new_gate(clock, places=1)
    for _ in range(10):
        assert reason(gate, sealed(key=OTHER)) is Reason.WRONG_KEY
    assert gate.admit(sealed()) == b"{}"


def test_a_full_memory_refuses_and_forgets_nothing_in_its_time(clock: Clock) -> None:
    gate = new_gate(clock, places=20)
    early = [sealed(at=START) for _ in range(10)]
    late = [sealed(at=START + 1) for _ in range(10)]
    for token in early + late:
        gate.admit(token)
    more = sealed(at=START + 1)
    for _ in range(50):
        assert reason(gate, more) is Reason.FULL
        assert reason(gate, sealed(at=START + 1)) is Reason.FULL
    assert {reason(gate, token) for token in early + late} == {Reason.REPLAYED}
    clock.now = START + TTL + 1
    # The early ones' second is over. What was refused was never let in, and may come now.
    assert gate.admit(more) == b"{}"
    assert {reason(gate, token) for token in early} == {Reason.EXPIRED}
    assert {reason(gate, token) for token in (*late, more)} == {Reason.REPLAYED}
    for _ in range(9):
        gate.admit(sealed(at=clock.now))
    assert reason(gate, sealed(at=clock.now)) is Reason.FULL


@pytest.mark.parametrize("places", [MAX_ADMITTED >> 4, *in_bulk([MAX_ADMITTED])])
def test_the_memory_has_room_for_what_a_host_is_asked_and_not_for_more(
    clock: Clock, places: int
) -> None:
    class Open(Sealer):
        """Lets everything pass, so that the memory alone is looked at."""

        def decrypt(self, token: bytes) -> bytes:
            return b""

    gate = gate_of(clock, memory_of_long_ago(clock, places), Open([NEW]))
    raw = bytearray(base64.urlsafe_b64decode(sealed()))
    tracemalloc.start()
    try:
        for number in range(places):
            raw[-32:-16] = number.to_bytes(16, "little")
            gate.admit(base64.urlsafe_b64encode(raw))
        assert tracemalloc.get_traced_memory()[0] < 256 * places
        raw[-32:-16] = b"x" * 16
        assert reason(gate, base64.urlsafe_b64encode(raw)) is Reason.FULL
        clock.now += TTL + 1
        raw[1:9] = int(clock.now).to_bytes(8, "big")
        for number in range(places, 2 * places):
            raw[-32:-16] = number.to_bytes(16, "little")
            gate.admit(base64.urlsafe_b64encode(raw))
        assert tracemalloc.get_traced_memory()[0] < 256 * places
    finally:
        tracemalloc.stop()


# --- anything ---


@given(st.binary(max_size=400))
@example(b"")
@example(b"gAAAAA")
@example(b'{"jsonrpc":"2.0","id":1,"method":"info"}')
@example(b"\xff" * 65507)
@example(b"gAAAAA" + b"=" * 100)
@example(b"gAAAAABr" + b"A" * 92)
def test_no_datagram_without_a_key_is_let_in(datagram: bytes) -> None:
    gate = new_gate()
    reason(gate, datagram)
    with pytest.raises(NotOpened):
        Sealer([NEW]).open(datagram)


@given(st.data())
def test_no_token_is_let_in_when_a_bit_of_it_changed(data: st.DataObject) -> None:
    gate = new_gate()
    raw = bytearray(base64.urlsafe_b64decode(sealed(os.urandom(data.draw(st.integers(0, 64))))))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    reason(gate, base64.urlsafe_b64encode(raw))


@given(st.binary(max_size=2000), st.sampled_from([OLD, NEW]))
def test_every_text_comes_through_once(text: bytes, key: bytes) -> None:
    gate = new_gate()
    token = MultiFernet([Fernet(key)]).encrypt_at_time(text, START)
    assert gate.admit(token) == text
    assert reason(gate, token) is Reason.REPLAYED


# --- direction ---


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, True),
        ({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "x"}}, True),
        ({"id": 1, "result": {"migration": "method"}}, True),
        ({"id": 1, "result": [{"method": 1}]}, True),
        ({"jsonrpc": "2.0", "id": 1, "method": "info"}, False),
        ({"id": 1, "method": "info", "params": {"migration": "result"}}, False),
        ({"id": 1, "method": "info", "error": 1}, False),
        ({"params": {"result": 1}}, False),
        ([{"result": 1}], False),
        ("result", False),
    ],
)
def test_a_reply_is_told_from_a_request(message: object, expected: bool) -> None:
    assert is_reply(json.dumps(message).encode()) is expected


@pytest.mark.parametrize(
    "text", [b"", b'{"result"', b"\xff", b'"result"' + b"[" * 49_000, b'{"error":' * 5000]
)
def test_what_is_no_json_is_no_reply(text: bytes) -> None:
    assert not is_reply(text)
