"""vdpad-vhost-user: gives one vDPA device to one VMM, and shadows its guest's control queue."""

import argparse
import asyncio
import faulthandler
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from vdpad.backend.control.sockets import CONTROL, VARLINK
from vdpad.backend.front_end_socket import SOCKET, bound, handed_over, inherited_socket
from vdpad.backend.opening import open_software, open_vhost_vdpa
from vdpad.backend.options import BackEndOptions
from vdpad.backend.process import run
from vdpad.cli import terminal
from vdpad.cli.program import as_program
from vdpad.cli.vhost_user_options import STATE, check_options, command_line, name_of
from vdpad.errors import VdpadError, why
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.service import log
from vdpad.service.systemd.notify import take_inherited
from vdpad.wire.addresses import BACK_END_CONTROL, BACK_END_VARLINK, BACK_ENDS

# QEMU's "Backend program conventions". Network back ends have no features of their own there.
_CAPABILITIES = {"type": "net", "features": []}


def main(argv: list[str] | None = None) -> int:
    """Runs until the front end has gone, or SIGTERM or SIGINT; 1 where it could not start."""
    with as_program():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    terminal.set_up()
    try:
        parser = command_line()
        arguments = parser.parse_args(argv)
        if arguments.print_capabilities:
            terminal.give(json.dumps(_CAPABILITIES))
            return 0
        check_options(parser, arguments)
        faulthandler.enable()
        log.configure(verbose=arguments.verbose)
        inherited = {each.name: each.fd for each in take_inherited(os.environ)}
        front_ends = _front_ends(parser, arguments, inherited)
        with _folder(arguments):
            asyncio.run(run(_options(arguments, inherited), _opener(arguments), front_ends))
    except VdpadError as error:
        terminal.tell(str(error), "vdpad-vhost-user")
        return 1
    except OSError as error:
        # Once it serves, what the system refuses is a front end's refusal.
        terminal.tell(f"could not start: {why(error)}", "vdpad-vhost-user")
        return 1
    return 0


def _options(arguments: argparse.Namespace, inherited: Mapping[str, int]) -> BackEndOptions:
    name = name_of(arguments)
    folder = BACK_ENDS / name
    return BackEndOptions(
        name=name,
        state_directory=arguments.state_directory or folder / STATE,
        control={
            CONTROL: arguments.control or folder / BACK_END_CONTROL,
            VARLINK: arguments.varlink or folder / BACK_END_VARLINK,
        },
        allowed=frozenset(arguments.allow_uid),
        shared_address_space=arguments.shared_address_space,
        in_order=arguments.in_order,
        stay=arguments.stay,
        card_mac=arguments.mac,
        monitor=arguments.qmp,
        card=arguments.nic,
        textfile=arguments.metrics,
        rehearses=arguments.rehearsal,
        inherited=inherited,
    )


@contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[None]:
    """The folder of what has its default place, which does not stay where nothing was served.

    Whoever needs it says where it is missing.
    """
    folder = BACK_ENDS / name_of(arguments)
    if None not in (arguments.control, arguments.varlink, arguments.state_directory):
        yield
        return
    try:
        folder.mkdir(parents=True)
    except OSError:
        yield
        return
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for each in (folder / STATE, folder):
                if each.exists():
                    each.rmdir()
        raise


def _opener(arguments: argparse.Namespace) -> Callable[[], ShadowedDevice]:
    if arguments.software is not None:
        return partial(open_software, arguments.software)
    return partial(open_vhost_vdpa, arguments.vhost_vdpa)


def _front_ends(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, inherited: Mapping[str, int]
) -> AbstractContextManager[socket.socket]:
    """Where front ends come from; where it is not said, the parser ends the process.

    Raises:
        CannotListen: what was handed over is no such socket.
    """
    if SOCKET in inherited:
        return inherited_socket(inherited[SOCKET])
    if arguments.fd is not None:
        return handed_over(arguments.fd)
    if arguments.socket_path is None:
        parser.error(
            "expected --socket-path, --fd or a socket of systemd's, named "
            f"{SOCKET}; front ends would not know where to connect"
        )
    return bound(arguments.socket_path)


if __name__ == "__main__":
    sys.exit(main())
