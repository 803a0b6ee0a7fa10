"""The commands of vdpactl: one function for each, in the order in which help tells of them.

Each says how its command is called, and sets what vdpactl.py does with it:

    run            from the command line to plain values; where nothing is said, it asks the daemon
    show           from these to text for people
    exit_code      from these to the exit code
    lack           what argparse cannot say is missing from the command line, "" where nothing is;
                   a back end that is asked needs none of it
    is_only_copy   whether the values are lost where nobody reads them

What is not for every command is imported when it runs.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any

import vdpad
from vdpad.cli import help_text, listing, show, transport
from vdpad.cli.arguments import Parser, file_name, path
from vdpad.cli.ask import ask
from vdpad.cli.exit_codes import FAILED, FAULTY, INCOMPATIBLE, MEANINGS, OK, SLOWER, USAGE
from vdpad.cli.options import (
    STATE_FILE,
    set_defaults,
    with_common_options,
    with_deadline,
    with_device,
    with_device_choice,
    with_migration,
    with_original,
    with_results,
    with_source,
    with_state,
    with_target,
    with_tested_device,
)

# The parsers of argparse's subcommands, which it has no public type for.
_Subparsers = Any


def command_line() -> argparse.ArgumentParser:
    """The parser of all of them."""
    parser = Parser(
        prog="vdpactl",
        formatter_class=help_text.WithSections,
        description=help_text.paragraph(
            "Asks a vdpad to check, prepare and restore virtio-net device states; reads, converts "
            "and compares them without one."
        ),
        epilog=help_text.section("Exit codes", [(str(at), text) for at, text in MEANINGS.items()]),
    )
    set_defaults(parser)
    parser.set_defaults(lack=lambda _: "", is_only_copy=lambda _: False)
    with_common_options(parser)
    parser.add_argument("--version", action="version", version=f"vdpactl {vdpad.__version__}")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for add in _COMMANDS:
        add(methods)
    return parser


def _add(methods: _Subparsers, name: str, shower: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = methods.add_parser(name, help=text, description=text)
    with_common_options(parser)
    parser.set_defaults(run=ask, show=shower, exit_code=lambda result: OK)
    return parser


def _add_offline(
    methods: _Subparsers, name: str, shower: str, text: str
) -> argparse.ArgumentParser:
    parser = _add(methods, name, _later("vdpad.cli.show_state", shower), f"{text}; needs no daemon")
    parser.set_defaults(run=_later("vdpad.cli.states", name))
    return parser


def _later(module: str, name: str) -> Callable[[Any], Any]:
    """A function that is imported when it is called: what it takes is not for every command."""

    def call(argument: Any) -> Any:
        return getattr(import_module(module), name)(argument)

    return call


# --- of a host ---


def _info(methods: _Subparsers) -> None:
    _add(methods, "info", show.info, "what the daemon is and takes")


def _devices(methods: _Subparsers) -> None:
    devices = _add(methods, "devices", show.devices, "the vDPA devices of the daemon's host")
    devices.add_argument(
        "--management",
        action="store_true",
        help="what such devices can be made on, on this host; needs no daemon",
    )
    devices.set_defaults(run=_devices_or_management)


def _devices_or_management(arguments: argparse.Namespace) -> Any:
    if not arguments.management:
        return ask(arguments)
    _later("vdpad.cli.provisioning", "show_management")(arguments)
    return arguments.run(arguments)


def _provision(methods: _Subparsers) -> None:
    text = "make a vDPA device on this host that is like a guest's on its source; needs no daemon"
    provision = _add(methods, "provision", _later("vdpad.cli.show_devices", "provisioned"), text)
    with_original(provision)
    provision.add_argument(
        "--mgmtdev", required=True, metavar="NAME", help="what to make it on: devices --management"
    )
    provision.add_argument(
        "--name", help="of the new device; default: the source's, else the first free of vdpa0, …"
    )
    provision.add_argument(
        "--dry-run", action="store_true", help="print the `vdpa dev add` line instead"
    )
    provision.set_defaults(run=_later("vdpad.cli.provisioning", "provision"))


def _deprovision(methods: _Subparsers) -> None:
    text = "remove a vDPA device of this host that no process has open; needs no daemon"
    deprovision = _add(
        methods, "deprovision", _later("vdpad.cli.show_devices", "deprovisioned"), text
    )
    deprovision.add_argument("device", help="its vdpa name")
    deprovision.set_defaults(run=_later("vdpad.cli.provisioning", "deprovision"))


def _backends(methods: _Subparsers) -> None:
    shower = _later("vdpad.cli.show_back_end", "back_ends")
    backends = _add(methods, "backends", shower, "this host's back ends")
    backends.set_defaults(run=_later("vdpad.cli.back_end", "all_back_ends"))


# --- of a state, and of its migration ---


def _check(methods: _Subparsers) -> None:
    check = _add(methods, "check", show.check, "whether a target takes a state")
    with_state(check, needs_target=False)
    check.set_defaults(
        lack=_lack_of_target,
        exit_code=lambda result: OK if result["compatible"] else INCOMPATIBLE,
    )


def _lack_of_target(arguments: argparse.Namespace) -> str:
    given = (arguments.software, arguments.vhost_vdpa, arguments.target)
    return (
        ""
        if given != (None, None, None)
        else "one of --software, --vhost-vdpa and --target, or --backend"
    )


def _load(methods: _Subparsers) -> None:
    load = _add(methods, "load", show.report, "try a state on a back end's device, for its guest")
    with_source(load)
    load.set_defaults(lack=lambda _: "--backend, as no daemon takes states so")


def _switch(methods: _Subparsers) -> None:
    switch = _add(
        methods, "switch", show.report, "have another device take over a back end's guest"
    )
    with_target(switch)
    switch.set_defaults(lack=lambda _: "--backend, as no daemon has a guest's device")


def _prepare(methods: _Subparsers) -> None:
    prepare = _add(methods, "prepare", show.operation, "check and encode a state for a target")
    with_migration(prepare)
    with_state(prepare)
    with_deadline(prepare)
    prepare.add_argument(
        "--committer", type=int, metavar="UID", help="who may commit it too: the VMM's user"
    )


def _restore(methods: _Subparsers) -> None:
    restore = _add(methods, "restore", show.report, "prepare and commit in one")
    with_migration(restore)
    with_state(restore)
    with_deadline(restore)


def _commit(methods: _Subparsers) -> None:
    commit = _add(methods, "commit", show.report, "replay what was prepared")
    with_migration(commit)
    with_deadline(commit)


def _status(methods: _Subparsers) -> None:
    status = _add(methods, "status", show.status, "what became of one migration, or of all")
    listing.add_options(status)
    status.set_defaults(run=listing.status)


def _watch(methods: _Subparsers) -> None:
    watch = _add(methods, "watch", lambda _: "", "what is under way, and each change as it comes")
    watch.add_argument("--failed", action="store_true", help="those that failed, and no others")
    watch.set_defaults(run=_later("vdpad.cli.watch", "run"))


def _cancel(methods: _Subparsers) -> None:
    with_migration(_add(methods, "cancel", show.operation, "give up what was prepared"))


def _release(methods: _Subparsers) -> None:
    with_device(_add(methods, "release", show.released, "close a device that the daemon keeps"))


# --- that need no daemon ---


def _keygen(methods: _Subparsers) -> None:
    keygen = _add(methods, "keygen", transport.show_keygen, "make a key for --key-file")
    keygen.add_argument("file", nargs="?", type=path, metavar="FILE", help="default: print it")
    keygen.set_defaults(run=transport.keygen, is_only_copy=lambda result: "key" in result)


def _selftest(methods: _Subparsers) -> None:
    selftest = _add(
        methods,
        "selftest",
        _later("vdpad.cli.show_selftest", "selftest"),
        "test whether a device that nobody uses does what the virtio specification says; resets "
        "it, needs no daemon",
    )
    with_tested_device(selftest)
    with_results(selftest)
    selftest.set_defaults(
        run=_later("vdpad.cli.selftest", "run"),
        lack=_lack_of_tested_device,
        exit_code=_exit_code_of_selftest,
    )


def _lack_of_tested_device(arguments: argparse.Namespace) -> str:
    # Else another host's device would be named, and this host's of that name be reset.
    if arguments.host is not None:
        return "no --host, since a device of this host is tested, without a daemon"
    given = (arguments.device, arguments.software)
    if given.count(None) != 1:
        return "either a device or --software"
    no_use = arguments.config is not None and arguments.software is None
    return "--software with --config" if no_use else ""


def _exit_code_of_selftest(result: Any) -> int:
    if result["findings"]:
        return FAULTY
    return SLOWER if result.get("comparison", {}).get("slower") else OK


def _decode(methods: _Subparsers) -> None:
    decode = _add_offline(methods, "decode", "decoded", "what is in a state's file, of any format")
    decode.add_argument("files", nargs="+", type=file_name, metavar="FILE", help=STATE_FILE)
    decode.set_defaults(exit_code=lambda result: OK if all(map(_is_whole, result)) else USAGE)


def _is_whole(file: dict[str, Any]) -> bool:
    """Whether a decoded file could be read and holds valid states only."""
    return "error" not in file and all(each["state"] is not None for each in file["devices"])


def _capture(methods: _Subparsers) -> None:
    capture = _add_offline(methods, "capture", "captured", "the state of a running QEMU's device")
    capture.add_argument("--qmp", type=path, metavar="SOCKET", help="QEMU's QMP")
    with_device_choice(capture, "the device's id, where QEMU has several")
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


def _lack_of_qemu(arguments: argparse.Namespace) -> str:
    given = arguments.qmp is not None and (arguments.features or arguments.ask_features)
    return "" if given else "--qmp and one of --features and --ask-features, or --backend"


def _convert(methods: _Subparsers) -> None:
    convert = _add_offline(methods, "convert", "converted", "a state in another format")
    convert.add_argument("file", type=file_name, metavar="FILE", help=STATE_FILE)
    convert.add_argument("--to", required=True, choices=("native", "device-parts", "command-log"))
    convert.add_argument(
        "--output", type=file_name, metavar="FILE", help="default: standard output"
    )
    with_device_choice(convert)


def _diff(methods: _Subparsers) -> None:
    diff = _add_offline(methods, "diff", "compared", "what two states differ in, by name")
    for name in ("first", "second"):
        diff.add_argument(name, type=file_name, metavar="FILE", help=STATE_FILE)
    with_device_choice(diff)
    diff.set_defaults(exit_code=lambda result: OK if result["same"] else FAILED)


_COMMANDS = (
    _info,
    _devices,
    _provision,
    _deprovision,
    _backends,
    _check,
    _load,
    _switch,
    _prepare,
    _restore,
    _commit,
    _status,
    _watch,
    _cancel,
    _release,
    _keygen,
    _selftest,
    _decode,
    _capture,
    _convert,
    _diff,
)
