"""Commands that end too early or too late, and such as do not exist."""

from collections.abc import Iterator, Sequence

from vdpad.conformance.answers import word
from vdpad.conformance.bench import Bench, NotApplicable
from vdpad.conformance.case import Case, Level
from vdpad.conformance.cases.expecting import Make, refuses
from vdpad.conformance.commands import (
    NO_SUCH_CLASS,
    NO_SUCH_COMMAND,
    candidates,
    clause_of,
    filler,
    id_of,
)
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.conformance.odd_layout import OddChain
from vdpad.virtio.commands import ACK_ERR, COMMANDS, AnnounceAck, CoalVqGet, Command, RxMode
from vdpad.virtio.raw_command import RawCommand

_HEADER = 2
_TOO_MANY = bytes(8)
"""More than the byte of padding that Linux sends behind hash keys."""


# A device that cannot serve it may do no more until it is reset, so it is not waited for as long.
_SOON = 1.0


def _sample(command: type[Command], up: DeviceUp) -> bytes:
    """The data of a command that is well formed."""
    if command is CoalVqGet:
        return CoalVqGet(0, 0, 0).encode()[_HEADER:]
    made = candidates(up.features, up.config)
    return next(each for each in made if type(each) is command).encode()[_HEADER:]


def _malformed(command: type[Command]) -> Iterator[Case]:
    def case(what: str, title: str, make: Make) -> Case:
        return Case(
            f"{id_of(command)}.{what}",
            f"{command.NAME} {title} is refused",
            clause_of(command),
            Level.SHOULD,
            refuses(make),
            frozenset({command.FEATURE}),
        )

    yield case("bare", "without its data", lambda _: RawCommand(command.CODE, b""))
    # A receive mode has one byte, and without that it is bare.
    if not issubclass(command, RxMode):
        yield case(
            "truncated",
            "without its last byte",
            lambda up: RawCommand(command.CODE, _sample(command, up)[:-1]),
        )
    yield case(
        "overlong",
        f"with {len(_TOO_MANY)} bytes too many",
        lambda up: RawCommand(command.CODE, _sample(command, up) + _TOO_MANY),
    )


def _unknown_command(code: int, kinds: Sequence[type[Command]]) -> Case:
    async def check(bench: Bench) -> Sequence[str]:
        if all(each.FEATURE not in bench.up.features for each in kinds):
            raise NotApplicable("no command of the class is negotiated")
        ack = await bench.ack(RawCommand((code, NO_SUCH_COMMAND), b""))
        said = f"a command of class {code} that does not exist: {word(ack)}, must be refused"
        return [] if ack == ACK_ERR else [said]

    return Case(
        f"unknown-command.{code}",
        f"a command of class {code} that does not exist is refused",
        "5.1.6.5",
        Level.MUST,
        check,
    )


def _unknown_commands() -> Iterator[Case]:
    for code in sorted({code for code, _ in COMMANDS}):
        kinds = [each for at, each in COMMANDS.items() if at[0] == code]
        yield _unknown_command(code, kinds)


async def _unknown_class(bench: Bench) -> Sequence[str]:
    ack = await bench.ack(NO_SUCH_CLASS)
    if ack == ACK_ERR:
        return ()
    return [f"a command of a class that does not exist: {word(ack)}, must be refused"]


async def _unknown_class_in_batch(bench: Bench) -> Sequence[str]:
    alone = await bench.ack(NO_SUCH_CLASS)
    first = candidates(bench.up.features, bench.up.config)[:1]
    if not first or alone != ACK_ERR:
        raise NotApplicable("there is no command before it, or it is not refused alone")
    await bench.reset()
    *_, behind = await bench.acks(*first, NO_SUCH_CLASS)
    return carried_over(first[0], behind)


def carried_over(first: Command, behind: int | None) -> Sequence[str]:
    """What is wrong with the answer to a command that does not exist, behind one that does."""
    if behind == ACK_ERR:
        return ()
    return [
        f"a command of a class that does not exist: refused alone, but {word(behind)} behind "
        f"{first.NAME} in one batch. The device carries an answer over from one command "
        "to the next, so what it acknowledges in a batch may not have been done (a known bug "
        "of Linux's vdpa_sim_net)"
    ]


async def _one_byte(bench: Bench) -> Sequence[str]:
    returned = await bench.exchanged(OddChain((b"\0",)), seconds=min(_SOON, bench.seconds))
    (ack,) = returned.acks()
    return () if ack == ACK_ERR else [f"a class without a command: {word(ack)}"]


async def _announced(bench: Bench) -> Sequence[str]:
    # Whether there is anything to acknowledge is the device's to know.
    ack = await bench.ack(AnnounceAck())
    return [f"{AnnounceAck.NAME}: {word(ack)}"] if ack is None else ()


async def _goes_on(bench: Bench) -> Sequence[str]:
    await bench.ack(NO_SUCH_CLASS)
    command = filler(bench.up.features, bench.up.config)
    ack = await bench.ack(command)
    return [f"{command.NAME} behind a command that does not exist: {word(ack)}"] * (ack is None)


CASES: tuple[Case, ...] = (
    *(case for each in COMMANDS.values() if each is not AnnounceAck for case in _malformed(each)),
    *_unknown_commands(),
    Case(
        "unknown-class.alone",
        "a command of a class that does not exist is refused",
        "5.1.6.5",
        Level.MUST,
        _unknown_class,
    ),
    Case(
        "unknown-class.in-batch",
        "it is refused behind a command that is taken, too",
        "5.1.6.5",
        Level.MUST,
        _unknown_class_in_batch,
    ),
    Case(
        "unknown-class.behind",
        "a command behind it is answered",
        "5.1.6.5",
        Level.MUST,
        _goes_on,
    ),
    Case(
        "one-byte",
        "a class without a command is refused",
        "5.1.6.5",
        Level.SHOULD,
        _one_byte,
    ),
    Case(
        "announce-ack.answered",
        "ANNOUNCE_ACK is answered, though nothing was asked for",
        clause_of(AnnounceAck),
        Level.MUST,
        _announced,
        frozenset({AnnounceAck.FEATURE}),
    ),
)
