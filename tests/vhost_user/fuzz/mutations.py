"""What becomes of a script: a few mutations, each by a random number generator that it is given."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from tests.vhost_user.front_end import (
    ADD_MEM_REG,
    NEED_REPLY,
    REM_MEM_REG,
    SET_MEM_TABLE,
    SET_PROTOCOL_FEATURES,
    VERSION,
    Memory,
)
from tests.vhost_user.fuzz.script import (
    Cancel,
    ConfigChanged,
    HangUp,
    Kind,
    Message,
    Script,
    Shrink,
    Step,
    Wait,
)

_MAX_MUTATIONS = 6
_MAX_DESCRIPTORS = 253

# Numbers near which something changes: of rings, of bits, of addresses, of integers.
_TELLING = (
    *(0, 1, 2, 3, 4, 5, 8, 15, 16, 127, 255, 256, 257, 32767, 32768, 65535, 65536),
    *(4095, 4096, 8192, 1 << 31, (1 << 32) - 1, 1 << 44, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1),
    *(Memory.GUEST, Memory.USER, Memory.SIZE, Memory.SIZE + 4096, Memory.GUEST + Memory.SIZE),
    *(Memory.USER + Memory.SIZE - 1, Memory.USER + 4096, Memory.GUEST - 4096),
)
_FILE_SIZES = (0, 1, 4096, Memory.SIZE - 4096, Memory.SIZE - 1, Memory.SIZE, 2 * Memory.SIZE)

Steps = list[Step]


def mutated(random: Random, scripts: Sequence[Script]) -> Script:
    """One of the scripts, mutated."""
    script = random.choice(scripts)
    steps = [*script.steps]
    if random.random() < 0.5:
        steps = _asking(steps)
    for _ in range(random.randint(1, _MAX_MUTATIONS)):
        if steps:
            random.choice(_MUTATIONS)(random, steps, scripts)
    return replace(script, steps=tuple(steps))


def _asking(steps: Steps) -> Steps:
    """Asks for an answer to everything: a session goes on after what it refuses then."""
    asked: Steps = []
    agreed = False
    for step in steps:
        assert isinstance(step, Message)
        asked.append(replace(step, flags=step.flags | NEED_REPLY) if agreed else step)
        agreed |= step.request == SET_PROTOCOL_FEATURES
    return asked


def _at(random: Random, steps: Steps) -> int:
    return random.randrange(len(steps))


def _change(random: Random, steps: Steps, change: Callable[[Message], Message]) -> None:
    """Changes one of the messages, if there is any."""
    at = random.choice([at for at, step in enumerate(steps) if isinstance(step, Message)] or [-1])
    step = steps[at]
    if isinstance(step, Message):
        steps[at] = change(step)


# --- their order ---


def _drop(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    at = _at(random, steps)
    del steps[at : at + random.choice((1, 1, 1, 4))]


def _double(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    step = random.choice(steps)
    steps[(at := _at(random, steps)) : at] = [step] * random.choice((1, 1, 1, 20))


def _move(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    step = steps.pop(_at(random, steps))
    steps.insert(random.randint(0, len(steps)), step)


def _shuffle(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    at = _at(random, steps)
    some = steps[at : at + 8]
    random.shuffle(some)
    steps[at : at + 8] = some


def _again(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    steps += steps[_at(random, steps) :]


def _borrow(random: Random, steps: Steps, scripts: Sequence[Script]) -> None:
    others = random.choice(scripts).steps
    at, begin = _at(random, steps), random.randrange(len(others))
    steps[at:at] = others[begin : begin + random.choice((1, 3, 10))]


def _take_away(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    """A region that was shared is taken away, and perhaps shared again."""
    shared = [(at, step, region) for at, step in enumerate(steps) for region in _regions(step)]
    if not shared:
        return
    at, step, region = random.choice(shared)
    again = [step] * random.choice((0, 1))
    message = Message(REM_MEM_REG, VERSION | NEED_REPLY, bytes(8) + region)
    steps[(at := random.randint(at, len(steps))) : at] = [message, *again]


def _regions(step: Step) -> list[bytes]:
    """The memory that a message shares."""
    if not isinstance(step, Message) or step.request not in (ADD_MEM_REG, SET_MEM_TABLE):
        return []
    behind = step.payload[8:]
    return [behind[at : at + 32] for at in range(0, len(behind), 32)]


def _between(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    """Something that is no message."""
    step = random.choice(
        (Shrink(random.choice(_FILE_SIZES)), ConfigChanged(), Wait(), HangUp(), Cancel())
    )
    steps.insert(random.randint(0, len(steps)), step)


# --- their bytes ---


def _flip(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    bit = random.randrange(1 << 12)

    def change(message: Message) -> Message:
        if not message.payload:
            return replace(message, flags=message.flags ^ 1 << bit % 32)
        payload = bytearray(message.payload)
        payload[bit // 8 % len(payload)] ^= 1 << bit % 8
        return replace(message, payload=bytes(payload))

    _change(random, steps, change)


def _set_number(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    """One integer of a payload is another, which is often one of consequence."""
    width = random.choice((4, 8, 8))
    value = random.choice((*_TELLING, random.getrandbits(64))) % (1 << 8 * width)
    place = random.randrange(1 << 12)

    def change(message: Message) -> Message:
        number = len(message.payload) // width
        if not number:
            return message
        at = place % number * width
        data = message.payload[:at] + value.to_bytes(width, "little") + message.payload[at:][width:]
        return replace(message, payload=data)

    _change(random, steps, change)


def _set_header(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    field = random.choice(("request", "request", "flags", "size"))
    values = {
        "request": [*range(46), 1 << 31],
        "flags": [0, 1, 2, 3, 5, 9, 13, 1 << 31],
        "size": [0, 1, 7, 8, 12, 20, 40, 268, 4096, 4097, (1 << 32) - 1],
    }
    value = random.choice(values[field])
    _change(random, steps, lambda message: replace(message, **{field: value}))


def _lengthen(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    """Bytes are there that the header counts, or that it does not."""
    more = random.randbytes(random.choice((1, 4, 8, 32, 4096)))
    tells = random.random() < 0.5

    def change(message: Message) -> Message:
        size = None if tells else len(message.payload)
        return replace(message, payload=message.payload + more, size=size)

    _change(random, steps, change)


def _truncate(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    """Fewer bytes are there, as the header says or against it."""
    left = random.random()
    tells = random.random() < 0.5

    def change(message: Message) -> Message:
        if tells:
            return replace(message, payload=message.payload[: int(left * len(message.payload))])
        return replace(message, sent=int(left * len(message.data)))

    _change(random, steps, change)


def _split(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    part = random.random()
    is_late = random.random() < 0.3
    _change(
        random,
        steps,
        lambda it: replace(it, pause=1 + int(part * (len(it.data) - 1)), is_late=is_late),
    )


# --- their descriptors ---


def _attach(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    kinds = [*Kind]
    number = random.choice((0, 1, 1, 1, 2, 9, _MAX_DESCRIPTORS))
    attached = tuple(random.choice(kinds) for _ in range(number))
    # An own other end is one descriptor more.
    attached = attached[: _MAX_DESCRIPTORS - attached.count(Kind.ITS_OWN_END)]
    _change(random, steps, lambda message: replace(message, kinds=attached))


def _other_kind(random: Random, steps: Steps, _scripts: Sequence[Script]) -> None:
    kind = random.choice([*Kind])
    carrying = [at for at, it in enumerate(steps) if isinstance(it, Message) and it.kinds]
    if carrying:
        at = random.choice(carrying)
        message = steps[at]
        assert isinstance(message, Message)
        steps[at] = replace(message, kinds=(kind,) * len(message.kinds))


_MUTATIONS: tuple[Callable[[Random, Steps, Sequence[Script]], None], ...] = (
    *(_drop, _double, _move, _shuffle, _again, _borrow, _take_away, _between, _between),
    *(_flip, _flip, _set_number, _set_number, _set_number, _set_number, _set_header),
    *(_lengthen, _truncate, _split, _attach, _other_kind, _other_kind),
)
