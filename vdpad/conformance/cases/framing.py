"""How a command's buffers are laid out, which is the driver's to choose."""

from collections.abc import Callable, Sequence

from vdpad.conformance.answers import word
from vdpad.conformance.bench import Bench
from vdpad.conformance.case import Case, Check, Level
from vdpad.conformance.commands import filler
from vdpad.conformance.odd_layout import OddChain
from vdpad.virtio.features import Feature

_FRAMING = '2.7.4 "Message Framing"'
_HEADER = 2
_SOON = 1.0


def _framed(frame: Callable[[bytes], OddChain]) -> Check:
    """A command that is answered as it is when a restore frames it."""

    async def check(bench: Bench) -> Sequence[str]:
        command = filler(bench.up.features, bench.up.config)
        expected = await bench.ack(command)
        await bench.reset()
        returned = await bench.exchanged(frame(command.encode()))
        (ack,) = returned.acks()
        if ack is not None and ack == expected:
            return ()
        return [f"{command.NAME}: {word(ack)}, and {word(expected)} as a restore sends it"]

    return check


async def _lives_on(bench: Bench) -> Sequence[str]:
    command = filler(bench.up.features, bench.up.config)
    expected = await bench.ack(command)
    await bench.reset()
    # Whether it comes back is open: a device may take it for a reason to do no more.
    chain = OddChain((command.encode(),), writable=())
    await bench.exchanged(chain, seconds=min(_SOON, bench.seconds))
    await bench.reset()
    ack = await bench.ack(command)
    if ack is not None and ack == expected:
        return ()
    return [f"{command.NAME} after that and a reset: {word(ack)}, and {word(expected)} before"]


def _case(id_: str, title: str, check: Check, *needs: Feature) -> Case:
    return Case(id_, title, _FRAMING, Level.MUST, check, frozenset(needs))


CASES: tuple[Case, ...] = (
    _case(
        "framing.header-apart",
        "class and command may stand in a buffer of their own",
        _framed(lambda data: OddChain((data[:_HEADER], data[_HEADER:] or b"\0"))),
        Feature.VERSION_1,
    ),
    _case(
        "framing.class-apart",
        "class and command may stand in two buffers",
        _framed(lambda data: OddChain((data[:1], data[1:]))),
        Feature.VERSION_1,
    ),
    Case(
        "framing.indirect",
        "descriptors may stand in an indirect table",
        '2.7.5.3 "Indirect Descriptors"',
        Level.MUST,
        _framed(lambda data: OddChain((data,), indirect=True)),
        frozenset({Feature.RING_INDIRECT_DESC}),
    ),
    _case(
        "ack.room",
        "there may be more room behind the ack",
        _framed(lambda data: OddChain((data,), writable=(64,))),
        Feature.VERSION_1,
    ),
    _case(
        "ack.apart",
        "the ack's buffer may be one of several",
        _framed(lambda data: OddChain((data,), writable=(1, 63))),
        Feature.VERSION_1,
    ),
    Case(
        "ack.none",
        "after a command with no room for an ack, a reset makes the device serve again",
        '2.4 "Device Reset"',
        Level.MUST,
        _lives_on,
    ),
)
