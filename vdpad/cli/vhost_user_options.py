"""The command line of vdpad-vhost-user: its options, and which of them go together."""

import argparse
import re
from pathlib import Path

import vdpad
from vdpad.backend.opening import LOOP, TAP, is_software
from vdpad.cli import help_text
from vdpad.cli.arguments import Parser, descriptor, file_name, mac, path, socket_path, textfile, uid
from vdpad.wire.addresses import BACK_END_CONTROL, BACK_END_VARLINK, BACK_ENDS

STATE = "state"
"""In a back end's folder, where what the guest has set is kept."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_EXIT_CODES = [
    ("0", "its front end has gone, or it was told to end"),
    ("1", "it could not start, and it says why"),
    ("2", "wrong options"),
]
_FILES = [
    (f"{BACK_ENDS}/NAME/{BACK_END_CONTROL}", "where it is asked by datagram"),
    (f"{BACK_ENDS}/NAME/{BACK_END_VARLINK}", "where it is asked over connections (Varlink)"),
    (f"{BACK_ENDS}/NAME/{STATE}", "what the guest has set, for a back end that is started again"),
    ("/usr/share/doc/vdpad/backend.md", "which VMM works how, and what a guest could do"),
]
_EXAMPLES = [
    (
        "try it, as any user, on a software device that loops packets:",
        "vdpad-vhost-user --software --socket-path /tmp/net0 --control /tmp/net0.control "
        "--varlink /tmp/net0.varlink --state-directory /dev/shm/net0",
    ),
    (
        "the same on a TAP interface of this user's (ip tuntap add dev tap0 mode tap user USER):",
        "vdpad-vhost-user --software=tap:tap0 --socket-path /tmp/net0 --control /tmp/net0.control "
        "--varlink /tmp/net0.varlink --state-directory /dev/shm/net0",
    ),
    (
        "a vDPA device, for one VMM after the other:",
        "vdpad-vhost-user --vhost-vdpa vdpa0 --socket-path /run/vm-7/net0 --stay",
    ),
    ("what its guest has set so far:", "vdpactl --backend vdpa0 capture"),
]


def command_line() -> argparse.ArgumentParser:
    """Its parser."""
    parser = Parser(
        prog="vdpad-vhost-user",
        formatter_class=help_text.WithSections,
        description=help_text.paragraph(
            "Gives one vDPA device to one VMM over vhost-user. Packets go between guest and device "
            "and never through this process; the commands of the guest's control queue do, and "
            "what they set can be captured, outlives this process, and is given back to a device "
            "for a guest that goes on."
        ),
        epilog="\n\n".join(
            [
                help_text.section("exit codes", _EXIT_CODES),
                help_text.section("files", _FILES),
                help_text.examples(_EXAMPLES),
                "see also: vdpad-vhost-user(8), vdpactl(1), vdpad(8)",
            ]
        ),
    )
    _add_device(parser.add_argument_group("the device"))
    _add_front_ends(parser.add_argument_group("its front end"))
    _add_control(parser.add_argument_group("who asks, and what is kept"))
    parser.add_argument(
        "--print-capabilities",
        action="store_true",
        help="print what this program is, as QEMU's conventions have it, and end",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log debugging events too (default: from info on)"
    )
    parser.add_argument(
        "--version", action="version", version=f"vdpad-vhost-user {vdpad.__version__}"
    )
    return parser


def _software(text: str) -> str:
    if not is_software(text):
        raise argparse.ArgumentTypeError(
            f"expected {LOOP}, or {TAP} and the name of an interface, got {text!r}"
        )
    return text


def _add_device(group: argparse._ArgumentGroup) -> None:
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument(
        "--vhost-vdpa",
        type=file_name,
        metavar="NAME|PATH",
        help="a vDPA device, or the path of its node",
    )
    kinds.add_argument(
        "--software",
        nargs="?",
        const=LOOP,
        type=_software,
        metavar=f"{LOOP}|{TAP}IFNAME",
        help="a software device, which loops each packet back to its queue pair (the default), or "
        "passes packets through a TAP interface",
    )
    group.add_argument(
        "--shared-address-space",
        action="store_true",
        help="take a device that lets its guest reach the control queue's ring; the guest must be "
        "trusted (docs/backend.md)",
    )
    group.add_argument(
        "--in-order",
        action="store_true",
        help="the device returns buffers in the order in which the guest has made them available: "
        "where it cannot be suspended, the used rings tell where its queues stand (default: they "
        "are told to nobody then, and its guest cannot be moved)",
    )


def _add_front_ends(group: argparse._ArgumentGroup) -> None:
    places = group.add_mutually_exclusive_group()
    places.add_argument(
        "--socket-path", type=socket_path, metavar="PATH", help="where the front end connects"
    )
    places.add_argument(
        "--fd", type=descriptor, metavar="N", help="its connection, or a socket that listens for it"
    )
    group.add_argument(
        "--stay", action="store_true", help="wait for the next one when it has gone (default: end)"
    )
    group.add_argument(
        "--mac",
        type=mac,
        metavar="MAC",
        help="what the card of a guest has whose VMM keeps the control queue: the device is given "
        "it at each start (default: the device's own)",
    )
    group.add_argument(
        "--qmp",
        type=socket_path,
        metavar="PATH",
        help="a QMP monitor of a QEMU that keeps the control queue: the device has the filter that "
        "its guest has, as the monitor tells (default: it is open wide)",
    )
    group.add_argument(
        "--nic",
        metavar="ID",
        help="which card of that QEMU, by its id or its netdev's (default: the only one)",
    )
    group.add_argument(
        "--no-rehearsal",
        dest="rehearsal",
        action="store_false",
        help="take the state of a guest that a VMM moves here without a trial on the device, which "
        "costs the guest a start's time (default: try it, and refuse one that is not taken)",
    )


def _add_control(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--name", help="by which it is asked (default: the device's)")
    for name, where in (("control", BACK_END_CONTROL), ("varlink", BACK_END_VARLINK)):
        kind = "datagrams" if name == "control" else "connections"
        group.add_argument(
            f"--{name}",
            type=socket_path,
            metavar="PATH",
            help=f"where to take {kind}, unless systemd hands a socket over (default: "
            f"{BACK_ENDS}/NAME/{where})",
        )
    group.add_argument(
        "--allow-uid",
        type=uid,
        action="append",
        default=[],
        metavar="UID",
        help="who may ask beside its own user and root; may be given several times",
    )
    group.add_argument(
        "--state-directory",
        type=path,
        metavar="DIR",
        help=f"where what the guest has set is kept, on tmpfs (default: {BACK_ENDS}/NAME/{STATE})",
    )
    group.add_argument(
        "--metrics",
        type=textfile,
        metavar="PATH",
        help="where to write metrics every 15 s, for node_exporter's textfile collector: a path "
        "that ends in .prom (default: nowhere)",
    )


# --- what goes together ---


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the process, as the parser does, where options do not go together."""
    if arguments.vhost_vdpa is None and arguments.software is None:
        parser.error("one of the arguments --vhost-vdpa --software is required")
    if arguments.software is not None and arguments.shared_address_space:
        parser.error(
            "argument --shared-address-space: not allowed with argument --software, whose control "
            "queue has an address space of its own"
        )
    _check_places(parser, arguments)
    if arguments.nic is not None and arguments.qmp is None:
        parser.error("argument --nic: expected --qmp beside it, whose monitor knows the card")
    if not _NAME.fullmatch(name_of(arguments)):
        expected = "1 to 64 letters, digits, '.', '_' and '-', the first a letter or a digit"
        option, more = "--name", ""
        if arguments.name is None:
            option = "--software" if arguments.vhost_vdpa is None else "--vhost-vdpa"
            more = "; name the back end by --name"
        got = name_of(arguments)
        parser.error(f"argument {option}: expected a name of {expected}, got {got!r}{more}")


def _check_places(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Each socket and file has a place of its own."""
    options: dict[Path, str] = {}
    for name in ("socket_path", "control", "varlink", "state_directory", "qmp", "metrics"):
        place, option = getattr(arguments, name), f"--{name.replace('_', '-')}"
        if place is None:
            continue
        other = options.setdefault(place.absolute(), option)
        if other != option:
            parser.error(f"argument {option}: expected another path than {other}'s, got {place}")


def name_of(arguments: argparse.Namespace) -> str:
    """The back end's name; the device's where none is given."""
    if arguments.name is not None:
        return str(arguments.name)
    if arguments.vhost_vdpa is not None:
        return Path(arguments.vhost_vdpa).name
    kind = str(arguments.software)
    return kind.removeprefix(TAP) if kind.startswith(TAP) else "software"
