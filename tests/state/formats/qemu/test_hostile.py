"""Recorded streams, cut and mutated: a clear error or a valid state, in little memory."""

import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.marks import in_bulk
from vdpad.state.formats.qemu import QemuStream
from vdpad.state.model import NetState
from vdpad.virtio.features import FEATURES

from . import made
from .faults import READERS, little_memory, mutated, read_pipe, refused_or_valid

RECORDED = sorted(Path(__file__).parent.joinpath("recorded").glob("*.xz"))
MUTATIONS, IN_BULK = 500, 10_000


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Where a stream of a real QEMU is, most of its memory left out: see tests/qemu/record.py."""
    recorded: Path = request.param
    return recorded


@pytest.fixture
def recorded(path: Path) -> bytes:
    """The stream."""
    return lzma.decompress(path.read_bytes())


def test_there_are_streams_of_every_version() -> None:
    assert {path.stem.split("-")[0] for path in RECORDED} >= {"7.2", "10.0", "11.1"}


@pytest.mark.parametrize("read", READERS)
def test_each_has_what_its_guest_set(
    path: Path, recorded: bytes, read: Callable[[bytes], QemuStream]
) -> None:
    (device,) = read(recorded).devices
    assert device.state is not None, device.problems
    set_by_guest = json.loads(path.with_suffix(".json").read_text())
    features = FEATURES.names(device.state.features)
    expected = NetState.model_validate_json(
        json.dumps({"version": 1, "features": features, **set_by_guest})
    )
    for part in set_by_guest:
        assert getattr(device.state, part) == getattr(expected, part), part


# An odd step, so that each reader has its turns.
@pytest.mark.parametrize("step", [15, *in_bulk([1])])
def test_every_truncation_is_refused(recorded: bytes, step: int) -> None:
    with little_memory():
        for length in range(0, len(recorded), step):
            read = READERS[length % 2]
            assert refused_or_valid(read, recorded[:length]), length


def test_sections_before_the_memory_take_little_of_a_pipe() -> None:
    early = made.full(made.Section("early", bytes(1 << 20), "early"), 3) * 30
    memory = made.ram_sections(made.page() * 5000)
    stream = made.header() + early + memory
    with little_memory():
        assert refused_or_valid(read_pipe, stream)


@pytest.mark.parametrize("mutations", [MUTATIONS, *in_bulk([IN_BULK])])
def test_mutations(recorded: bytes, mutations: int) -> None:
    chance = random.Random(len(recorded))
    refused = 0
    with little_memory():
        for number in range(mutations):
            refused += refused_or_valid(READERS[number % 2], mutated(recorded, chance))
    # Both ends must come up, else this looks at nothing.
    assert 0 < refused < mutations
