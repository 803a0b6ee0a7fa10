"""Device parts that nobody should send: cut, changed, moved, and as many as there may be."""

import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.state.formats.part_wires import DRV_FEATURES, SAMPLE, cvq_part
from tests.support.marks import in_bulk
from vdpad.state.formats.device_parts import decode
from vdpad.state.found import FormatError
from vdpad.virtio.device_parts import MAX_SETTING_BYTES, pull_parts

ENDS = [*(part.at for part in pull_parts(SAMPLE)), len(SAMPLE)]
PARTS = [SAMPLE[start:end] for start, end in pairwise(ENDS)]


def test_bytes_truncated_anywhere_are_refused_but_between_parts() -> None:
    for length in range(len(SAMPLE)):
        if length in ENDS[1:]:
            assert decode(SAMPLE[:length]).state is not None
        else:
            with pytest.raises(FormatError):
                decode(SAMPLE[:length])


def _mutated(chance: random.Random) -> bytes:
    """The sample with bytes changed, parts moved, or cut."""
    parts = PARTS.copy()
    match chance.randrange(4):
        case 0:
            chance.shuffle(parts)
        case 1:
            parts.insert(chance.randrange(len(parts) + 1), chance.choice(parts))
        case 2:
            parts.pop(chance.randrange(len(parts)))
    data = bytearray(b"".join(parts))
    for _ in range(chance.randrange(4)):
        data[chance.randrange(len(data))] = chance.choice(
            (0, 1, 2, 0x7F, 0xFF, chance.randrange(256))
        )
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("mutations", [4000, *in_bulk([10_000])])
def test_whatever_is_done_to_the_bytes_there_is_an_error_or_an_answer(mutations: int) -> None:
    chance = random.Random(14)
    states = refused = invalid = 0
    for _ in range(mutations):
        try:
            found = decode(_mutated(chance))
        except FormatError:
            refused += 1
            continue
        assert (found.state is None) is bool(found.problems)
        states += found.state is not None
        invalid += found.state is None
    assert min(states, refused, invalid) > 100


def _short_parts() -> str:
    """As short as parts with a selector of 4 bytes can be, all different."""
    return "".join(f"0201 0000 {at:08x}00000000 01000000 00" for at in range(20_000))


def _unknown_commands() -> str:
    return "".join(cvq_part(f"{code:04x}", "") for code in range(0x9000, 0xC000))


def _long_features() -> str:
    return "0101 0000 0000000000000000 00000800" + "00" * 0x80000


def _misplaced_macs() -> str:
    count = (MAX_SETTING_BYTES - 8) // 6
    macs = "".join(f"01{at:010x}" for at in range(count))
    return cvq_part("0100", f"{count.to_bytes(4, 'little').hex()} {macs} 00000000")


def _vlans() -> str:
    return cvq_part("0200", "0100" * (MAX_SETTING_BYTES // 2))


@pytest.mark.parametrize(
    "wire", [_short_parts, _unknown_commands, _long_features, _misplaced_macs, _vlans]
)
def test_memory_grows_with_the_bytes_and_no_faster(wire: Callable[[], str]) -> None:
    features = "" if wire is _long_features else DRV_FEATURES
    data = bytes.fromhex(features + wire())
    tracemalloc.start()
    try:
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 * len(data)
