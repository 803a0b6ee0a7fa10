"""`watch`: a line for each operation under way, and then for each change, until it is ended."""

import argparse
import contextlib
import json

from vdpad.cli import show
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.terminal import give
from vdpad.cli.transport import client_of
from vdpad.cli.whose import NOT_A_DAEMON, if_not_of
from vdpad.client import CannotSend, Client
from vdpad.wire.addresses import BACK_END_INTERFACE

_UNDER_WAY = ("prepared", "committing")


def run(arguments: argparse.Namespace) -> None:
    """Prints until somebody has seen enough: an interrupt, or a pipe that is closed.

    Raises:
        Refused: not allowed; or the daemon ends.
        Unreachable: it cannot be asked, or is gone.
        CannotSend: it cannot be watched this way.
    """
    client = client_of(arguments)
    if not isinstance(client, Client):
        raise CannotSend("watching goes over a connection on the daemon's host, and not over UDP")
    with (
        contextlib.suppress(KeyboardInterrupt),
        if_not_of(arguments.socket, BACK_END_INTERFACE, NOT_A_DAEMON),
    ):
        run_interruptibly(_watch(client, failed=arguments.failed, as_json=arguments.json))


async def _watch(client: Client, *, failed: bool, as_json: bool) -> None:
    first = ("failed",) if failed else _UNDER_WAY
    async with contextlib.aclosing(client.watch(first)) as changes:
        async for each in changes:
            if failed and each["state"] != "failed":
                continue
            if not give(json.dumps(each) if as_json else show.change(each)):
                return
