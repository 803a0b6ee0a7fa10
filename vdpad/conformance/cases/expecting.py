"""What most cases are made of: a command that must be taken, and one that must be refused."""

from collections.abc import Callable, Sequence

from vdpad.conformance.answers import named, word
from vdpad.conformance.bench import Bench
from vdpad.conformance.case import Check
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.raw_command import AnyCommand

Make = Callable[[DeviceUp], AnyCommand]
"""The command for a device; raises NotApplicable where there is none for it."""


def takes(*makes: Make) -> Check:
    """Commands, in one batch, that are acked OK."""

    async def check(bench: Bench) -> Sequence[str]:
        commands = [make(bench.up) for make in makes]
        return told(commands, await bench.acks(*commands), ACK_OK)

    return check


def refuses(make: Make) -> Check:
    """A command, alone, that is acked ERR."""

    async def check(bench: Bench) -> Sequence[str]:
        command = make(bench.up)
        return told([command], [await bench.ack(command)], ACK_ERR)

    return check


def told(commands: Sequence[AnyCommand], acks: Sequence[int | None], expected: int) -> list[str]:
    """A sentence for each that was not answered so."""
    return [
        f"{named(command)}: {word(ack)}"
        for command, ack in zip(commands, acks, strict=True)
        if ack != expected
    ]
