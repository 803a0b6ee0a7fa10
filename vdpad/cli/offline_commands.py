"""The commands of vdpactl that need no daemon: for keys, a device's test, states in files."""

import argparse
from typing import Any

from vdpad.cli import transport
from vdpad.cli.adding import Add, Subparsers, add, add_offline, later
from vdpad.cli.arguments import file_name, path
from vdpad.cli.exit_codes import FAILED, FAULTY, OK, SLOWER, USAGE
from vdpad.cli.options import (
    STATE_FILE,
    with_device_choice,
    with_results,
    with_tested_device,
)


def _keygen(methods: Subparsers) -> None:
    keygen = add(methods, "keygen", transport.show_keygen, "make a key for --key-file")
    keygen.add_argument("file", nargs="?", type=path, metavar="FILE", help="default: print it")
    keygen.set_defaults(run=transport.keygen, is_only_copy=lambda result: "key" in result)


def _selftest(methods: Subparsers) -> None:
    selftest = add(
        methods,
        "selftest",
        later("vdpad.cli.show_selftest", "selftest"),
        "test whether a device that nobody uses does what the virtio specification says; resets "
        "it, needs no daemon",
    )
    with_tested_device(selftest)
    with_results(selftest)
    selftest.set_defaults(
        run=later("vdpad.cli.selftest", "run"),
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


def _decode(methods: Subparsers) -> None:
    decode = add_offline(methods, "decode", "decoded", "what is in a state's file, of any format")
    decode.add_argument("files", nargs="+", type=file_name, metavar="FILE", help=STATE_FILE)
    decode.set_defaults(exit_code=lambda result: OK if all(map(_is_whole, result)) else USAGE)


def _is_whole(file: dict[str, Any]) -> bool:
    """Whether a decoded file could be read and holds valid states only."""
    return "error" not in file and all(each["state"] is not None for each in file["devices"])


def _capture(methods: Subparsers) -> None:
    capture = add_offline(methods, "capture", "captured", "the state of a running QEMU's device")
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


def _convert(methods: Subparsers) -> None:
    convert = add_offline(methods, "convert", "converted", "a state in another format")
    convert.add_argument("file", type=file_name, metavar="FILE", help=STATE_FILE)
    formats = ("native", "device-parts", "command-log")
    convert.add_argument("--to", required=True, choices=formats, help="which format")
    convert.add_argument(
        "--output", type=file_name, metavar="FILE", help="default: standard output"
    )
    with_device_choice(convert)


def _diff(methods: Subparsers) -> None:
    diff = add_offline(methods, "diff", "compared", "what two states differ in, by name")
    for name in ("first", "second"):
        diff.add_argument(name, type=file_name, metavar="FILE", help=STATE_FILE)
    with_device_choice(diff)
    diff.set_defaults(exit_code=lambda result: OK if result["same"] else FAILED)


OFFLINE_COMMANDS: tuple[Add, ...] = (
    _keygen,
    _selftest,
    _decode,
    _capture,
    _convert,
    _diff,
)
