"""A back end of this host, asked instead of a daemon (`--backend NAME`); and which there are.

Its name says where: over a connection in /run/vdpad/vhost-user/NAME/io.vdpad, as a capture may be
longer than a datagram takes, and where that is missing by datagrams in …/NAME/control.
"""

import argparse
import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdpad.cli import show, show_back_end
from vdpad.cli.ask import moved_params, state_params, target_params
from vdpad.cli.failures import Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.progress import waiting
from vdpad.cli.whose import if_not_of
from vdpad.client import Client, Refused, Unreachable
from vdpad.wire.addresses import (
    BACK_END_CONTROL,
    BACK_END_INTERFACE,
    BACK_END_VARLINK,
    BACK_ENDS,
    DAEMON_INTERFACE,
)


@dataclass(frozen=True, slots=True)
class _Method:
    """One of a back end's, as a command of vdpactl's has its name."""

    show: Callable[[Any], str]
    """Its result, for people."""
    params: Callable[[argparse.Namespace], dict[str, Any]] = lambda _: {}
    """From the command line."""
    own_field: str | None = None
    """What a daemon's result of the same name does not have."""


_METHODS: Mapping[str, _Method] = {
    "info": _Method(show_back_end.info, own_field="provides_control_queue"),
    "status": _Method(show_back_end.status, own_field="phase"),
    "capture": _Method(show_back_end.capture),
    "check": _Method(show.check, state_params),
    "load": _Method(show_back_end.loaded, moved_params),
    "switch": _Method(show_back_end.switched, target_params),
}

# How long one that does not answer keeps a list of all waiting, in seconds.
_PATIENCE = 2.0


def ask_instead(arguments: argparse.Namespace) -> None:
    """Has a command line that names a back end ask that.

    Raises:
        Usage: its method is none of a back end's, or it names a daemon too.
    """
    method = _METHODS.get(arguments.method)
    if method is None:
        there = ", ".join(_METHODS)
        raise Usage(f"--backend: expected one of {there}, got {arguments.method}")
    if arguments.socket is not None or arguments.host is not None:
        raise Usage("expected either --backend or a daemon's --socket or --host, got both")
    arguments.run = _ask
    arguments.show = method.show


def _ask(arguments: argparse.Namespace) -> Any:
    """The back end's result.

    Raises:
        Usage, InvalidState: a state that cannot be used, or a daemon has answered.
        Refused, Unreachable, CannotSend: as the client raises them.
    """
    method = _METHODS[arguments.method]
    params = method.params(arguments)

    async def call() -> Any:
        async with _client(socket_of(arguments.backend), arguments.timeout) as client:
            return await client.call(arguments.method, **params)

    advice = (
        f"--backend {arguments.backend}: expected a back end's socket, got a daemon's; ask it by "
        "--socket"
    )
    with (
        if_not_of(socket_of(arguments.backend), DAEMON_INTERFACE, advice),
        waiting("waiting for the reply", arguments.timeout),
    ):
        result = run_interruptibly(call())
    if method.own_field is not None and method.own_field not in result:
        raise Usage(advice)
    return result


def socket_of(named: str) -> Path:
    """Where a back end is asked, by its name or the path of one of its sockets, with a slash."""
    if "/" in named:
        return Path(named)
    over_connections = BACK_ENDS / named / BACK_END_VARLINK
    return over_connections if over_connections.exists() else BACK_ENDS / named / BACK_END_CONTROL


def _client(path: Path, timeout: float) -> Client:
    return Client(path, timeout, interface=BACK_END_INTERFACE)


def all_back_ends(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Those of this host by name, each with its `status`, or with `why` there is none."""
    return run_interruptibly(_statuses(min(_PATIENCE, arguments.timeout)))


async def _statuses(patience: float) -> list[dict[str, Any]]:
    sockets = sorted(BACK_ENDS.glob(f"*/{BACK_END_CONTROL}"))
    return await asyncio.gather(*(_status(each, patience) for each in sockets))


async def _status(control: Path, patience: float) -> dict[str, Any]:
    name = control.parent.name
    try:
        async with _client(control, patience) as client:
            return {"name": name, "status": await client.call("status"), "why": None}
    except (Refused, Unreachable) as error:
        return {"name": name, "status": None, "why": str(error)}
