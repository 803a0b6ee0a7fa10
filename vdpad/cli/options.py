"""Options and arguments that several commands of vdpactl have, each said once."""

import argparse

from vdpad.cli import transport
from vdpad.cli.arguments import file_name, path, rounds, seconds
from vdpad.client import DEFAULT_TIMEOUT
from vdpad.wire.addresses import DEFAULT_SOCKET, DEFAULT_VARLINK

STATE_FILE = (
    "a file with a state: JSON, what a back end captured or wrote, a QEMU migration stream, a "
    "command log or virtio device parts; - is standard input"
)


def set_defaults(parser: argparse.ArgumentParser) -> None:
    """Those of `with_common_options`, for the command line as a whole."""
    parser.set_defaults(socket=None, timeout=DEFAULT_TIMEOUT, json=False, host=None, key_file=None)
    parser.set_defaults(backend=None)


def with_common_options(parser: argparse.ArgumentParser) -> None:
    """Those that may stand before the method as well as behind it; their defaults are set once."""
    group = parser.add_argument_group("options for every method")
    group.add_argument(
        "--socket",
        type=path,
        default=argparse.SUPPRESS,
        metavar="PATH",
        help=f"the daemon's, of either kind (default: {DEFAULT_VARLINK}, else {DEFAULT_SOCKET})",
    )
    group.add_argument(
        "--backend",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="ask this back end of vdpad-vhost-user's, of whose methods are info, status, capture, "
        "check, load and switch; or the path of its control socket",
    )
    transport.add_options(group)
    group.add_argument(
        "--timeout",
        type=seconds,
        default=argparse.SUPPRESS,
        metavar="SECONDS",
        help=f"how long to wait for a reply (default: {DEFAULT_TIMEOUT:g})",
    )
    group.add_argument(
        "-j",
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the result as JSON",
    )


def with_migration(parser: argparse.ArgumentParser) -> None:
    """Which migration."""
    parser.add_argument("migration", help="the caller's own name for it")


def with_source(parser: argparse.ArgumentParser) -> None:
    """A state, by its file."""
    parser.add_argument("state", type=file_name, help=STATE_FILE)
    with_device_choice(parser, dest="of_device")


def with_original(parser: argparse.ArgumentParser) -> None:
    """What a new device is to be like."""
    parser.add_argument(
        "--like",
        required=True,
        action="append",
        type=file_name,
        metavar="FILE",
        help="what `vdpactl devices --json` printed on the source, or a file with the guest's "
        "state; given twice, one of each; - is standard input",
    )
    with_device_choice(parser)


def with_state(parser: argparse.ArgumentParser, *, needs_target: bool = True) -> None:
    """A state, and where it is to go."""
    with_source(parser)
    with_target(parser, required=needs_target)


def with_target(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """A device, of whatever kind."""
    target = parser.add_mutually_exclusive_group(required=required)
    target.add_argument("--software", metavar="NAME", help="a software device, by its name or kind")
    target.add_argument(
        "--vhost-vdpa", metavar="DEVICE", help="a vDPA device of the host, or the path of its node"
    )
    target.add_argument("--target", metavar="JSON", help="any target; @FILE reads it from a file")


def with_device_choice(
    parser: argparse.ArgumentParser,
    text: str = "the device's name, in a file that holds several",
    dest: str = "device",
) -> None:
    """Which device of several in one place."""
    parser.add_argument("--device", dest=dest, metavar="NAME", help=text)


def with_device(parser: argparse.ArgumentParser) -> None:
    """Which device of the host's."""
    parser.add_argument("device", help="its vdpa name, or the path of its node")


def with_tested_device(parser: argparse.ArgumentParser) -> None:
    """Which device of the host's, or of the daemon's own."""
    parser.add_argument("device", nargs="?", help="its vdpa name, or the path of its node")
    parser.add_argument(
        "--software",
        metavar="NAME",
        help="a software device, as the settings have it; it is made in vdpactl's own process",
    )
    parser.add_argument(
        "--config",
        type=path,
        metavar="FILE",
        help="with --software: the settings that have it (default: none, and sim0 is there)",
    )


_SELFTEST_FORMATS = {
    "junit": "the result as JUnit XML",
    "tap": "it by the Test Anything Protocol",
    "html": "it as a page with the times as a picture",
}


def with_results(parser: argparse.ArgumentParser) -> None:
    """What a selftest times, what its result is compared with, and where it is written."""
    parser.add_argument(
        "--repeat",
        type=rounds,
        default=10,
        metavar="N",
        help="how often each command is timed (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        type=file_name,
        metavar="FILE",
        help="what --json printed before; tells what became better or worse since",
    )
    for name, text in _SELFTEST_FORMATS.items():
        parser.add_argument(f"--{name}", type=path, metavar="FILE", help=f"write {text} too")


def with_deadline(parser: argparse.ArgumentParser) -> None:
    """How long a replay may take."""
    parser.add_argument(
        "--deadline-ms", type=int, metavar="MS", help="for the whole replay, in milliseconds"
    )
