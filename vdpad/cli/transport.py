"""Which daemon vdpactl asks, and how: on this host by its socket, on another by UDP."""

import argparse
from typing import TYPE_CHECKING

from vdpad.cli.arguments import path
from vdpad.client import Client
from vdpad.errors import VdpadError
from vdpad.wire.addresses import DEFAULT_PORT, host_and_port
from vdpad.wire.keys import load_keys, new_key, write_new_key

if TYPE_CHECKING:
    from vdpad.remote import RemoteClient


class BadTransport(VdpadError):
    """Options that do not say how to ask."""


def add_options(parser: argparse._ActionsContainer) -> None:
    """Those that choose another host; the parser has their defaults."""
    parser.add_argument(
        "--host",
        default=argparse.SUPPRESS,
        metavar="HOST[:PORT]",
        help=f"ask over UDP, sealed (default port {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--key-file",
        type=path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="the keys that this host and HOST have",
    )


def client_of(arguments: argparse.Namespace) -> "Client | RemoteClient":
    """The client that the command line means.

    Raises:
        BadTransport: --host without --key-file, or the other way round.
        BadAddress: of no sense.
        BadKeys: the key file cannot be used.
    """
    if (arguments.host is None) is not (arguments.key_file is None):
        raise BadTransport("--host and --key-file go together; `vdpactl keygen FILE` makes keys")
    if arguments.host is None:
        return Client(arguments.socket, arguments.timeout)
    host, port = host_and_port(arguments.host, DEFAULT_PORT)
    # What it takes is not for everyone who asks a daemon.
    from vdpad.remote import RemoteClient

    return RemoteClient(host, load_keys(arguments.key_file), port, arguments.timeout)


def keygen(arguments: argparse.Namespace) -> dict[str, str]:
    """A new key, in a file of its own or in the result.

    Raises:
        BadKeys: the file is there already, or cannot be written.
    """
    if arguments.file is None:
        return {"key": new_key()}
    write_new_key(arguments.file)
    return {"file": str(arguments.file)}


def show_keygen(result: dict[str, str]) -> str:
    """The key as a line of a key file, or where it is."""
    if "key" in result:
        return result["key"]
    return (
        f"{result['file']}: a new key, readable by its owner only. Copy it to the other host over "
        "a way that nobody reads."
    )
