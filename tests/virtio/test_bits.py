"""Bits by number, by mask and by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.errors import VdpadError
from vdpad.virtio.bits import BitNames, UnknownName, bits_of, mask_of
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, TUNNEL_TYPES
from vdpad.virtio.features import FEATURES

KINDS = (FEATURES, HASH_TYPES, GUEST_OFFLOADS, TUNNEL_TYPES)
one_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


@one_kind
def test_every_bit_has_a_name_that_stands_for_it(kind: BitNames) -> None:
    for bit in range(kind.width):
        assert kind.bit(kind.name(bit)) == bit


@one_kind
def test_no_two_bits_have_one_name(kind: BitNames) -> None:
    assert len({kind.name(bit) for bit in range(kind.width)}) == kind.width


def test_an_unknown_bit_is_named_by_its_number() -> None:
    assert FEATURES.name(77) == "bit_77"
    assert FEATURES.bit("bit_77") == 77


def test_a_known_bit_may_be_written_by_its_number() -> None:
    assert FEATURES.bit("bit_22") == FEATURES.bit("MQ") == 22


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mq",
        "VIRTIO_NET_F_MQ",
        "MQ ",
        "bit_",
        "bit_128",
        "bit_999",
        "bit_1000",
        "bit_07",
        "bit_-1",
        "bit_+1",
        "bit_1\n",
        "bit_٣",  # a digit, but none of ours
        "BIT_1",
        "name",
        "__class__",
    ],
)
def test_what_is_no_name_of_a_bit_is_refused(name: str) -> None:
    with pytest.raises(UnknownName, match="expected the name of a feature or bit_0 … bit_127"):
        FEATURES.bit(name)


@one_kind
def test_the_first_bit_past_the_mask_has_no_name(kind: BitNames) -> None:
    assert kind.bit(f"bit_{kind.width - 1}") == kind.width - 1
    with pytest.raises(UnknownName):
        kind.bit(f"bit_{kind.width}")


def test_a_refusal_repeats_only_the_beginning_of_a_long_name() -> None:
    with pytest.raises(UnknownName) as refused:
        FEATURES.bit("x" * 100_000)
    assert len(str(refused.value)) < 200


def test_an_unknown_name_is_a_vdpad_error_and_a_value_error() -> None:
    assert issubclass(UnknownName, VdpadError)
    assert issubclass(UnknownName, ValueError)


def test_names_come_in_the_order_of_their_bits() -> None:
    assert FEATURES.names({60, 77, 22, 5}) == ["MAC", "MQ", "RSS", "bit_77"]


def test_a_sentence_of_no_bits_says_none() -> None:
    assert FEATURES.sentence(()) == "none"
    assert FEATURES.sentence({60, 22}) == "MQ, RSS"


@given(st.integers(0, (1 << 128) - 1))
def test_a_mask_and_its_bits_are_one(mask: int) -> None:
    assert mask_of(bits_of(mask)) == mask


@given(st.frozensets(st.integers(0, 127)))
def test_bits_and_their_mask_are_one(bits: frozenset[int]) -> None:
    assert bits_of(mask_of(bits)) == bits


@pytest.mark.parametrize(
    ("mask", "bits"),
    [(0, set()), (1, {0}), (0x8000_0000, {31}), (0b1010, {1, 3}), (1 << 127, {127})],
)
def test_a_mask_has_these_bits(mask: int, bits: set[int]) -> None:
    assert bits_of(mask) == bits
    assert mask_of(bits) == mask
