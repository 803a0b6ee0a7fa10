"""The field types by themselves, in JSON and back."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from vdpad.state.fields import (
    FeatureNames,
    HashTypeNames,
    Key,
    MacAddress,
    OffloadNames,
    Vlans,
    is_multicast,
)
from vdpad.state.problems import problems_of

MAC: TypeAdapter[bytes] = TypeAdapter(MacAddress)
KEY: TypeAdapter[bytes] = TypeAdapter(Key)
VLANS: TypeAdapter[tuple[int, ...]] = TypeAdapter(Vlans)
FEATURES: TypeAdapter[frozenset[int]] = TypeAdapter(FeatureNames)
HASH_TYPES: TypeAdapter[frozenset[int]] = TypeAdapter(HashTypeNames)
OFFLOADS: TypeAdapter[frozenset[int]] = TypeAdapter(OffloadNames)


def _refused(adapter: TypeAdapter[Any], json: str) -> tuple[str, str]:
    with pytest.raises(ValidationError) as refused:
        adapter.validate_json(json)
    (problem,) = problems_of(refused.value)
    return problem.path, problem.code


@pytest.mark.parametrize(
    ("adapter", "json", "value", "back"),
    [
        (MAC, '"52:54:00:AB:cd:ef"', bytes.fromhex("525400abcdef"), b'"52:54:00:ab:cd:ef"'),
        (KEY, '"6D5a"', b"\x6d\x5a", b'"6d5a"'),
        (KEY, '""', b"", b'""'),
        (VLANS, "[[1,3],9]", (1, 2, 3, 9), b"[[1,3],9]"),
        (FEATURES, '["bit_77","RSS","MQ"]', frozenset({77, 60, 22}), b'["MQ","RSS","bit_77"]'),
        (HASH_TYPES, '["UDP_EX","bit_31"]', frozenset({8, 31}), b'["UDP_EX","bit_31"]'),
        (OFFLOADS, '["RSC_EXT","GUEST_CSUM"]', frozenset({1, 61}), b'["GUEST_CSUM","RSC_EXT"]'),
    ],
)
def test_a_field_is_read_and_written(
    adapter: TypeAdapter[Any], json: str, value: Any, back: bytes
) -> None:
    assert adapter.validate_json(json) == value
    assert adapter.dump_json(value) == back


@pytest.mark.parametrize(
    "json",
    [
        '"52:54:00:12:34:56:78"',
        '"52:54:00:12:34:5"',
        '"52:54:00:12:34:5g"',
        '" 52:54:00:12:34:56"',
        '"52:54:00:12:34:56\\n"',
        '"٥٢:54:00:12:34:56"',
        "null",
        "[]",
    ],
)
def test_what_is_no_mac_address_is_refused(json: str) -> None:
    assert _refused(MAC, json) == ("", "mac")


@pytest.mark.parametrize(
    ("json", "path", "code"),
    [
        ('["MQ","mq"]', "1", "unknown-name"),
        ('["bit_128"]', "0", "unknown-name"),
        ('["MQ","bit_22"]', "1", "duplicate"),
        ('["bit_77","RSS","bit_77"]', "2", "duplicate"),
        ("[22]", "0", "string"),
        ("[null]", "0", "string"),
        ('"MQ"', "", "list"),
        ("null", "", "list"),
    ],
)
def test_a_list_of_names_is_refused_for_its_wrong_one(json: str, path: str, code: str) -> None:
    assert _refused(FEATURES, json) == (path, code)


def test_the_wrong_name_is_told_with_what_was_expected() -> None:
    with pytest.raises(ValidationError, match="expected the name of a hash type or bit_0 … bit_31"):
        HASH_TYPES.validate_json('["IPv5"]')


@pytest.mark.parametrize(
    ("mac", "multicast"),
    [
        ("525400000001", False),
        ("01005e000001", True),
        ("ffffffffffff", True),
        ("feffffffffff", False),
    ],
)
def test_the_group_bit_is_the_lowest_of_the_first_octet(mac: str, multicast: bool) -> None:
    assert is_multicast(bytes.fromhex(mac)) is multicast


@pytest.mark.parametrize(("adapter", "past"), [(FEATURES, 128), (HASH_TYPES, 32), (OFFLOADS, 64)])
def test_bits_in_memory_are_bounded_as_their_names_are(
    adapter: TypeAdapter[frozenset[int]], past: int
) -> None:
    assert adapter.validate_python(frozenset({past - 1})) == frozenset({past - 1})
    for outside in (past, -1):
        with pytest.raises(ValidationError):
            adapter.validate_python(frozenset({outside}))
