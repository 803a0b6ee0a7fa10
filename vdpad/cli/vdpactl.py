"""vdpactl: asks a vdpad or a back end, and works on states without one, for people and for scripts.

A command is a function from the command line to plain values (`run`), one from these to text
(`show`), and one from them to the exit code.
"""

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import vdpad
from vdpad.cli import help_text, listing, show, terminal, transport
from vdpad.cli.arguments import Parser, file_name, path, refuse_stdin_twice, seconds
from vdpad.cli.ask import ask
from vdpad.cli.exit_codes import FAILED, FAULTY, INCOMPATIBLE, MEANINGS, OK, USAGE, exit_code_of
from vdpad.cli.failures import InvalidState
from vdpad.cli.interrupts import ended_by_interrupts
from vdpad.cli.terminal import NotGiven
from vdpad.client import DEFAULT_TIMEOUT, Refused
from vdpad.errors import VdpadError
from vdpad.wire.addresses import DEFAULT_SOCKET, DEFAULT_VARLINK

_STATE_FILE = (
    "a file with a state: JSON, what a back end captured or wrote, a QEMU migration stream or "
    "virtio device parts; - is standard input"
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and gives the exit code; an interrupt ends the process."""
    with ended_by_interrupts():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    terminal.set_up()
    try:
        arguments = _parsed(argv)
    except NotGiven as error:
        terminal.tell(str(error))
        return FAILED
    try:
        refuse_stdin_twice(arguments)
        if arguments.backend is not None:
            _back_end().ask_instead(arguments)
        result = arguments.run(arguments)
    except VdpadError as error:
        return _failed(error, as_json=arguments.json)
    return _done(result, arguments)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line; what a method needs unless a back end is asked, argparse cannot say."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.backend is None and (lack := arguments.lack(arguments)):
        parser.error(f"{arguments.method}: expected {lack}")
    return arguments


def _done(result: Any, arguments: argparse.Namespace) -> int:
    """Shows a result; the exit code is for what was done, whoever reads it."""
    code = int(arguments.exit_code(result))
    text = json.dumps(result, indent=2) if arguments.json else arguments.show(result)
    try:
        if text and not terminal.give(text) and arguments.is_only_copy(result):
            raise NotGiven("standard output: nobody reads it, and the result is lost")
    except NotGiven as error:
        terminal.tell(str(error))
        return code or FAILED
    return code


def _failed(error: VdpadError, *, as_json: bool) -> int:
    """Says why a command failed."""
    try:
        _show_failure(error, as_json=as_json)
    except NotGiven as lost:
        terminal.tell(str(lost))
    return exit_code_of(error)


def _show_failure(error: VdpadError, *, as_json: bool) -> None:
    match error:
        case InvalidState():
            _show_refusal(_as_refusal(error), as_json=as_json)
        case Refused():
            _show_refusal(error, as_json=as_json)
        case _:
            terminal.tell(str(error))


def _as_refusal(error: InvalidState) -> Refused:
    """What the daemon would have said to such a state."""
    data = {"kind": "invalid-params", "problems": error.problems}
    return Refused(-32602, str(error), data)


def _show_refusal(error: Refused, *, as_json: bool) -> None:
    if as_json:
        refusal = {"code": error.code, "message": str(error), "data": error.data}
        terminal.give(json.dumps({"error": refusal}, indent=2))
        return
    terminal.tell(f"{error.kind}: {error}")
    if "problems" in error.data:
        terminal.say(show.problems(error.data["problems"], to=sys.stderr))
    if "report" in error.data:
        terminal.give(show.report(error.data["report"]))


def _back_end() -> Any:
    return import_module("vdpad.cli.back_end")


def _later(module: str, name: str) -> Callable[[Any], Any]:
    """A function that is imported when it is called: what it takes is not for every command."""

    def call(argument: Any) -> Any:
        return getattr(import_module(module), name)(argument)

    return call


# --- the command line ---


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vdpactl",
        formatter_class=help_text.WithSections,
        description=help_text.paragraph(
            "Asks a vdpad to check, prepare and restore virtio-net device states; reads, converts "
            "and compares them without one."
        ),
        epilog=help_text.section("Exit codes", [(str(at), text) for at, text in MEANINGS.items()]),
    )
    parser.set_defaults(socket=None, timeout=DEFAULT_TIMEOUT, json=False, host=None, key_file=None)
    parser.set_defaults(backend=None, lack=lambda _: "")
    parser.set_defaults(is_only_copy=lambda _: False)
    _with_common_options(parser)
    parser.add_argument("--version", action="version", version=f"vdpactl {vdpad.__version__}")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    _add(methods, "info", show.info, "what the daemon is and takes")
    _add(methods, "devices", show.devices, "the vDPA devices of the daemon's host")
    _add(
        methods, "backends", _later("vdpad.cli.show_back_end", "back_ends"), "this host's back ends"
    ).set_defaults(run=_later("vdpad.cli.back_end", "all_back_ends"))
    check = _add(methods, "check", show.check, "whether a target takes a state")
    _with_state(check, needs_target=False)
    check.set_defaults(lack=_lack_of_target)
    check.set_defaults(exit_code=lambda result: OK if result["compatible"] else INCOMPATIBLE)
    load = _add(methods, "load", show.report, "try a state on a back end's device, for its guest")
    _with_source(load)
    load.set_defaults(lack=lambda _: "--backend, as no daemon takes states so")
    prepare = _add(methods, "prepare", show.operation, "check and encode a state for a target")
    restore = _add(methods, "restore", show.report, "prepare and commit in one")
    for method in (prepare, restore):
        _with_migration(method)
        _with_state(method)
        _with_deadline(method)
    prepare.add_argument(
        "--committer", type=int, metavar="UID", help="who may commit it too: the VMM's user"
    )
    commit = _add(methods, "commit", show.report, "replay what was prepared")
    _with_migration(commit)
    _with_deadline(commit)
    status = _add(methods, "status", show.status, "what became of one migration, or of all")
    listing.add_options(status)
    status.set_defaults(run=listing.status)
    watch = _add(methods, "watch", lambda _: "", "what is under way, and each change as it comes")
    watch.add_argument("--failed", action="store_true", help="those that failed, and no others")
    watch.set_defaults(run=_later("vdpad.cli.watch", "run"))
    _with_migration(_add(methods, "cancel", show.operation, "give up what was prepared"))
    release = _add(methods, "release", show.released, "close a device that the daemon keeps")
    _with_device(release)
    keygen = _add(methods, "keygen", transport.show_keygen, "make a key for --key-file")
    keygen.add_argument("file", nargs="?", type=path, metavar="FILE", help="default: print it")
    keygen.set_defaults(run=transport.keygen, is_only_copy=lambda result: "key" in result)
    selftest = _add(
        methods,
        "selftest",
        show.selftest,
        "test what a device that nobody uses does with each command; resets it, needs no daemon",
    )
    _with_device(selftest)
    selftest.set_defaults(
        run=_later("vdpad.cli.selftest", "run"),
        exit_code=lambda result: FAULTY if result["findings"] else OK,
    )
    _add_state_commands(methods)
    return parser


def _lack_of_target(arguments: argparse.Namespace) -> str:
    given = (arguments.software, arguments.vhost_vdpa, arguments.target)
    return (
        ""
        if given != (None, None, None)
        else "one of --software, --vhost-vdpa and --target, or --backend"
    )


def _lack_of_qemu(arguments: argparse.Namespace) -> str:
    given = arguments.qmp is not None and (arguments.features or arguments.ask_features)
    return "" if given else "--qmp and one of --features and --ask-features, or --backend"


def _with_common_options(parser: argparse.ArgumentParser) -> None:
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
        "check and load; or the path of its control socket",
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


def _add_state_commands(methods: Any) -> None:
    """Those that need no daemon."""
    decode = _add_offline(methods, "decode", "decoded", "what is in a state's file, of any format")
    decode.add_argument("files", nargs="+", type=file_name, metavar="FILE", help=_STATE_FILE)
    decode.set_defaults(exit_code=lambda result: OK if all(map(_is_whole, result)) else USAGE)

    capture = _add_offline(methods, "capture", "captured", "the state of a running QEMU's device")
    capture.add_argument("--qmp", type=path, metavar="SOCKET", help="QEMU's QMP")
    _with_device_choice(capture, "the device's id, where QEMU has several")
    features = capture.add_mutually_exclusive_group()
    features.add_argument(
        "--features",
        metavar="NAME,…",
        help="what the guest negotiated; or its /sys/bus/virtio/devices/virtioN/features",
    )
    features.add_argument(
        "--ask-features",
        action="store_true",
        help="ask QEMU (7.2 to 10.0), by a command of its that is not stable",
    )

    capture.set_defaults(lack=_lack_of_qemu)

    convert = _add_offline(methods, "convert", "converted", "a state in another format")
    convert.add_argument("file", type=file_name, metavar="FILE", help=_STATE_FILE)
    convert.add_argument("--to", required=True, choices=("native", "device-parts"))
    convert.add_argument(
        "--output", type=file_name, metavar="FILE", help="default: standard output"
    )
    _with_device_choice(convert)

    diff = _add_offline(methods, "diff", "compared", "what two states differ in, by name")
    for name in ("first", "second"):
        diff.add_argument(name, type=file_name, metavar="FILE", help=_STATE_FILE)
    _with_device_choice(diff)
    diff.set_defaults(exit_code=lambda result: OK if result["same"] else FAILED)


def _is_whole(file: dict[str, Any]) -> bool:
    """Whether a decoded file could be read and holds valid states only."""
    return "error" not in file and all(each["state"] is not None for each in file["devices"])


def _add(methods: Any, name: str, shower: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = methods.add_parser(name, help=text, description=text)
    _with_common_options(parser)
    parser.set_defaults(run=ask, show=shower, exit_code=lambda result: OK)
    return parser


def _add_offline(methods: Any, name: str, shower: str, text: str) -> argparse.ArgumentParser:
    parser = _add(methods, name, _later("vdpad.cli.show_state", shower), f"{text}; needs no daemon")
    parser.set_defaults(run=_later("vdpad.cli.states", name))
    return parser


def _with_migration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("migration", help="the caller's own name for it")


def _with_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", type=file_name, help=_STATE_FILE)
    _with_device_choice(parser, dest="of_device")


def _with_state(parser: argparse.ArgumentParser, *, needs_target: bool = True) -> None:
    _with_source(parser)
    target = parser.add_mutually_exclusive_group(required=needs_target)
    target.add_argument("--software", metavar="NAME", help="a software device of the daemon's")
    target.add_argument(
        "--vhost-vdpa", metavar="DEVICE", help="a vDPA device of the host, or the path of its node"
    )
    target.add_argument("--target", metavar="JSON", help="any target; @FILE reads it from a file")


def _with_device_choice(
    parser: argparse.ArgumentParser,
    text: str = "the device's name, in a file that holds several",
    dest: str = "device",
) -> None:
    parser.add_argument("--device", dest=dest, metavar="NAME", help=text)


def _with_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", help="its vdpa name, or the path of its node")


def _with_deadline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline-ms", type=int, metavar="MS", help="for the whole replay, in milliseconds"
    )


if __name__ == "__main__":
    sys.exit(main())
