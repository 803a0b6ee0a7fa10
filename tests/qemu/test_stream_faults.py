"""Whole streams of every QEMU, cut and mutated; the recorded ones have little memory in them."""

from __future__ import annotations

import random

from tests.state.formats.qemu.faults import READERS, little_memory, mutated, refused_or_valid

from .guestless import Options, guestless

CUTS = 300
MUTATIONS = 300


async def test_cut_and_mutated(program: str) -> None:
    async with guestless(Options(qemu=program, device_properties="rss=on,hash=on")) as qemu:
        stream = await qemu.stream()
    chance = random.Random(len(stream))
    assert not any(refused_or_valid(read, stream) for read in READERS)
    with little_memory():
        for number in range(CUTS):
            cut = stream[: chance.randrange(len(stream))]
            assert refused_or_valid(READERS[number % 2], cut), len(cut)
        for number in range(MUTATIONS):
            refused_or_valid(READERS[number % 2], mutated(stream, chance))
