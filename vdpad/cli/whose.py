"""Whose socket was asked: a daemon and a back end have methods of the same names.

Where an answer makes no sense, `info` of the other kind says whether it was the other's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdpad.cli.failures import Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.client import Client, Refused, Unreachable
from vdpad.wire.addresses import BACK_END_INTERFACE, DAEMON_INTERFACE

# What only one of them tells of itself.
_OWN_FIELDS = {DAEMON_INTERFACE: "targets", BACK_END_INTERFACE: "provides_control_queue"}

# What the other one answers to a request that is none of its own.
_ODD_KINDS = {"method-not-found", "invalid-params"}

# How long who has just failed to answer may take to say who he is, in seconds.
_PATIENCE = 1.0


NOT_A_DAEMON = (
    "expected a daemon's socket, got a back end's; ask it by --backend instead of --socket"
)
"""For whoever asks a daemon."""


@contextmanager
def if_not_of(path: Path | None, other: str, advice: str) -> Iterator[None]:
    """A request within, whose failure may be that the other kind of socket was asked.

    Args:
        path: of the socket; None where it is the daemon's own place.
        other: the interface of the other kind.
        advice: what to say then.

    Raises:
        Usage: it was.
        Refused, Unreachable: what the request raises otherwise.
    """
    try:
        yield
    except (Refused, Unreachable) as error:
        is_odd = isinstance(error, Unreachable) or error.kind in _ODD_KINDS
        if path is not None and is_odd and run_interruptibly(_is_of(path, other)):
            raise Usage(advice) from error
        raise


async def _is_of(path: Path, interface: str) -> bool:
    try:
        async with Client(path, _PATIENCE, interface=interface) as client:
            return _OWN_FIELDS[interface] in await client.call("info")
    except (Refused, Unreachable):
        return False
