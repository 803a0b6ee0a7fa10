"""vdpactl: asks a vdpad, for people and for scripts."""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vdpad
from vdpad.cli import show
from vdpad.client import DEFAULT_TIMEOUT, Client, Refused, Unreachable
from vdpad.datagrams import DEFAULT_SOCKET
from vdpad.errors import VdpadError

OK = 0
FAILED = 1
USAGE = 2
INCOMPATIBLE = 3
UNREACHABLE = 7

_EXIT_CODES = {
    "invalid-params": USAGE,
    "invalid-request": USAGE,
    "parse-error": USAGE,
    "incompatible": INCOMPATIBLE,
    "rejected": 4,
    "timeout": 5,
    "device-broken": 6,
}


_EXIT_CODES_TEXT = (
    "Exit codes: 0 done; 1 the daemon failed, or refused for another reason than those below, or a "
    "selftest found something; "
    "2 usage, or a state or target that makes no sense; 3 the device cannot take the state; 4 the "
    "device refused commands; 5 it did not answer in time; 6 it broke the rules of the ring; 7 no "
    "daemon could be asked."
)


class Usage(VdpadError):
    """What the command line names cannot be used."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and gives the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        result = arguments.run(arguments)
    except Usage as error:
        print(f"vdpactl: {error}", file=sys.stderr)
        return USAGE
    except Unreachable as error:
        print(f"vdpactl: {error}", file=sys.stderr)
        return UNREACHABLE
    except Refused as error:
        _show_refusal(error, as_json=arguments.json)
        return _EXIT_CODES.get(error.kind, FAILED)
    except VdpadError as error:
        print(f"vdpactl: {error}", file=sys.stderr)
        return FAILED
    print(json.dumps(result, indent=2) if arguments.json else arguments.show(result))
    return int(arguments.exit_code(result))


def _show_refusal(error: Refused, *, as_json: bool) -> None:
    if as_json:
        refusal = {"code": error.code, "message": str(error), "data": error.data}
        print(json.dumps({"error": refusal}, indent=2))
        return
    print(f"vdpactl: {error.kind}: {error}", file=sys.stderr)
    if "problems" in error.data:
        print(show.problems(error.data["problems"]), file=sys.stderr)
    if "report" in error.data:
        print(show.report(error.data["report"]))


def _ask(arguments: argparse.Namespace) -> Any:
    """The daemon's result."""
    params = _params(arguments)

    async def ask() -> Any:
        async with Client(arguments.socket, arguments.timeout) as client:
            return await client.call(arguments.method, **params)

    return asyncio.run(ask())


def _selftest(arguments: argparse.Namespace) -> Any:
    """The result of a test that needs no daemon.

    Raises:
        CannotTest: the device cannot be had.
    """
    # What it takes is not for everyone who asks a daemon.
    from vdpad.cli.selftest import selftest_of

    return selftest_of(arguments.device).to_json()


def _params(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request's parameters.

    Raises:
        Usage: a file that cannot be read, or holds no JSON object.
    """
    given = vars(arguments)
    params: dict[str, Any] = {}
    if "state" in given:
        params["state"] = _json_object(_read(arguments.state), arguments.state)
        params["target"] = _target(arguments)
    for name in ("migration", "deadline_ms", "device"):
        if given.get(name) is not None:
            params[name] = given[name]
    return params


def _target(arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.software is not None:
        return {"kind": "software", "name": arguments.software}
    if arguments.vhost_vdpa is not None:
        named = "path" if "/" in arguments.vhost_vdpa else "device"
        return {"kind": "vhost-vdpa", named: arguments.vhost_vdpa}
    text = arguments.target
    return _json_object(_read(text[1:]) if text.startswith("@") else text, "the target")


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"{name}: {error}") from error


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Usage(f"{name}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise Usage(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


# --- the command line ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vdpactl",
        description="Asks a vdpad to check, prepare and restore virtio-net device states.",
        epilog=_EXIT_CODES_TEXT,
    )
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET, metavar="PATH")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a reply (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--version", action="version", version=f"vdpactl {vdpad.__version__}")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    _add(methods, "info", show.info, "what the daemon is and takes")
    _add(methods, "devices", show.devices, "the vDPA devices of the daemon's host")
    check = _add(methods, "check", show.check, "whether a target takes a state")
    _with_state(check)
    check.set_defaults(exit_code=lambda result: OK if result["compatible"] else INCOMPATIBLE)
    prepare = _add(methods, "prepare", show.operation, "check and encode a state for a target")
    restore = _add(methods, "restore", show.report, "prepare and commit in one")
    for method in (prepare, restore):
        _with_migration(method)
        _with_state(method)
        _with_deadline(method)
    commit = _add(methods, "commit", show.report, "replay what was prepared")
    _with_migration(commit)
    _with_deadline(commit)
    status = _add(methods, "status", show.status, "what became of one migration, or of all")
    status.add_argument("migration", nargs="?")
    _with_migration(_add(methods, "cancel", show.operation, "give up what was prepared"))
    release = _add(methods, "release", show.released, "close a device that the daemon keeps")
    _with_device(release)
    selftest = _add(
        methods,
        "selftest",
        show.selftest,
        "test what a device that nobody uses does with each command; resets it, needs no daemon",
    )
    _with_device(selftest)
    selftest.set_defaults(
        run=_selftest, exit_code=lambda result: FAILED if result["findings"] else OK
    )
    return parser


def _add(methods: Any, name: str, shower: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = methods.add_parser(name, help=text, description=text)
    parser.set_defaults(run=_ask, show=shower, exit_code=lambda result: OK)
    return parser


def _with_migration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("migration", help="the caller's own name for it")


def _with_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", help="a file with the state in JSON; - is standard input")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--software", metavar="NAME", help="a software device of the daemon's")
    target.add_argument(
        "--vhost-vdpa", metavar="DEVICE", help="a vDPA device of the host, or the path of its node"
    )
    target.add_argument("--target", metavar="JSON", help="any target; @FILE reads it from a file")


def _with_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", help="its vdpa name, or the path of its node")


def _with_deadline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline-ms", type=int, metavar="MS", help="for the whole replay, in milliseconds"
    )


if __name__ == "__main__":
    sys.exit(main())
