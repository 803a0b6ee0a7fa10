"""What becomes of a ring in a guest's memory: mutations, each by a random number generator.

A device may be looking meanwhile. Nothing is kept of what the ring was: whoever has mutated one has
no use for its driver's notes any more.

Source: virtio 1.4, 2.7 "Split Virtqueues".
"""

import struct
from collections.abc import Callable
from random import Random

from tests.support.guest import GuestQueue
from tests.support.split_driver import INDIRECT, NEXT, WRITE

_ENTRY = 16  # of a descriptor table
_DESCRIPTOR = struct.Struct("<QIHH")
_LENGTHS = (0, 1, 2, 10, 12, 16, 17, 64, 4096, 65535, 1 << 16, 1 << 20, 1 << 24, (1 << 32) - 1)
_INDICES = (0, 1, 2, 15, 16, 17, 255, 1 << 15, (1 << 16) - 1)
_FAR = (0, 1, 1 << 12, 1 << 32, (1 << 63) - 8, (1 << 64) - 16, (1 << 64) - 1)


def mutate(random: Random, queue: GuestQueue) -> None:
    """Changes something of the ring, or of a buffer, in its queue's memory."""
    random.choice(_MUTATIONS)(random, queue)


def offer(queue: GuestQueue) -> None:
    """Makes the next entry available, whatever it says."""
    at = queue.driver.available + 2
    _poke_word(queue, at, _peek_word(queue, at) + 1)


def _word(random: Random, queue: GuestQueue) -> int:
    """A number of 16 bits, often one of consequence."""
    near = queue.driver.size * random.choice((0, 1, 2)) + random.choice((-1, 0, 1))
    return random.choice((*_INDICES, near, random.getrandbits(16))) & 0xFFFF


def _address(random: Random, queue: GuestQueue) -> int:
    """Of the ring, of memory, at a border of it, or of none."""
    driver, region = queue.driver, random.choice(queue.regions)
    inside = region.start + random.randrange(region.size)
    at_a_border = region.start + random.choice((-1, 0, region.size - 1, region.size))
    parts = (driver.descriptors, driver.available, driver.used)
    return random.choice((*parts, inside, inside, inside, at_a_border, *_FAR))


def _descriptor(random: Random, queue: GuestQueue, count: int) -> bytes:
    """One of a table of so many."""
    flags = random.choice((0, NEXT, WRITE, NEXT | WRITE, INDIRECT, random.getrandbits(16)))
    following = random.choice((random.randrange(count), _word(random, queue)))
    length = random.choice(_LENGTHS)
    return _DESCRIPTOR.pack(_address(random, queue), length, flags, following)


def _poke(queue: GuestQueue, address: int, data: bytes) -> None:
    """Writes where there is memory, and what fits there."""
    for region in queue.regions:
        at = address - region.start
        if 0 <= at < region.size:
            fits = data[: region.size - at]
            region.mapping[at : at + len(fits)] = fits
            return


def _poke_word(queue: GuestQueue, address: int, word: int) -> None:
    _poke(queue, address, (word & 0xFFFF).to_bytes(2, "little"))


def _peek_word(queue: GuestQueue, address: int) -> int:
    return int.from_bytes(queue.driver.memory.peek(address, 2), "little")


# --- the descriptor table ---


def _set_descriptor(random: Random, queue: GuestQueue) -> None:
    size = queue.driver.size
    at = queue.driver.descriptors + _ENTRY * random.randrange(size)
    _poke(queue, at, _descriptor(random, queue, size))


def _flip_descriptor(random: Random, queue: GuestQueue) -> None:
    at = queue.driver.descriptors + random.randrange(_ENTRY * queue.driver.size)
    before = queue.driver.memory.peek(at, 1)[0]
    _poke(queue, at, bytes((before ^ 1 << random.randrange(8),)))


def _make_indirect(random: Random, queue: GuestQueue) -> None:
    """A descriptor names a table, which has what chance puts there."""
    size = queue.driver.size
    count = random.choice((1, 2, size, size + 1, 1024))
    table = _address(random, queue)
    for entry in range(min(count, 8)):
        _poke(queue, table + _ENTRY * entry, _descriptor(random, queue, count))
    length = _ENTRY * count + random.choice((0, 0, 0, 1, 8))
    named = _DESCRIPTOR.pack(table, length, INDIRECT | random.choice((0, NEXT, WRITE)), 0)
    _poke(queue, queue.driver.descriptors + _ENTRY * random.randrange(size), named)


def _make_loop(random: Random, queue: GuestQueue) -> None:
    """All descriptors lead on, each to another."""
    size = queue.driver.size
    flags = NEXT | random.choice((0, WRITE))
    for at in range(size):
        entry = _DESCRIPTOR.pack(
            _address(random, queue), random.choice((1, 64)), flags, random.randrange(size)
        )
        _poke(queue, queue.driver.descriptors + _ENTRY * at, entry)


# --- the rings ---


def _move_available(random: Random, queue: GuestQueue) -> None:
    """The index says that there is more, or less."""
    at = queue.driver.available + 2
    size = queue.driver.size
    step = random.choice((1, 1, 2, size - 1, size, size + 1, -1, 1 << 15, random.getrandbits(16)))
    _poke_word(queue, at, _peek_word(queue, at) + step)


def _set_head(random: Random, queue: GuestQueue) -> None:
    at = queue.driver.available + 4 + 2 * random.randrange(queue.driver.size)
    _poke_word(queue, at, _word(random, queue))


def _repeat_head(random: Random, queue: GuestQueue) -> None:
    """One chain is made available many times."""
    head = random.randrange(queue.driver.size)
    for entry in range(queue.driver.size):
        _poke_word(queue, queue.driver.available + 4 + 2 * entry, head)
    _move_available(random, queue)


def _set_used(random: Random, queue: GuestQueue) -> None:
    at = queue.driver.used + 2 * random.randrange(2 + 4 * queue.driver.size)
    _poke_word(queue, at, _word(random, queue))


def _set_events(random: Random, queue: GuestQueue) -> None:
    driver = queue.driver
    places = (
        *(driver.available, driver.available + 4 + 2 * driver.size),  # flags, used_event
        *(driver.used, driver.used + 4 + 8 * driver.size),  # flags, avail_event
    )
    _poke_word(queue, random.choice(places), _word(random, queue))


def _scatter(random: Random, queue: GuestQueue) -> None:
    """Bytes of no meaning lie over some of it."""
    driver = queue.driver
    parts = (driver.descriptors, driver.available, driver.used)
    where = random.choice(parts) + random.randrange(_ENTRY * driver.size)
    _poke(queue, where, random.randbytes(random.choice((1, 2, 16, 256))))


_MUTATIONS: tuple[Callable[[Random, GuestQueue], None], ...] = (
    *(_set_descriptor, _set_descriptor, _flip_descriptor, _flip_descriptor, _make_indirect),
    *(_make_loop, _move_available, _move_available, _move_available, _set_head, _set_head),
    *(_repeat_head, _set_used, _set_events, _set_events, _scatter),
)
