"""A command line as a request to the daemon."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdpad.cli.failures import InvalidState, Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.progress import waiting
from vdpad.cli.terminal import tell
from vdpad.cli.transport import client_of
from vdpad.cli.whose import NOT_A_DAEMON, if_not_of
from vdpad.errors import why
from vdpad.wire import strict_json
from vdpad.wire.addresses import BACK_END_INTERFACE
from vdpad.wire.strict_json import Most

if TYPE_CHECKING:
    from vdpad.state.found import Found

# Far more than any target has. Stops a file without an end from filling memory, and one of many
# values from filling more than it has bytes.
_MAX_TARGET = 4 << 20
_MOST = Most(values=1 << 16, containers=1 << 10, names=1 << 10)


def ask(arguments: argparse.Namespace) -> Any:
    """The daemon's result.

    Raises:
        Usage, InvalidState: a state or a target that cannot be used; or a back end has answered.
        BadTransport, BadAddress, BadKeys: no way to ask.
        Refused, Unreachable, CannotSend: as the client raises them.
    """
    params = _params(arguments)

    async def call() -> Any:
        async with client_of(arguments) as client:
            return await client.call(arguments.method, **params)

    most_seconds = arguments.timeout + params.get("deadline_ms", 0) / 1000
    try:
        with (
            if_not_of(arguments.socket, BACK_END_INTERFACE, NOT_A_DAEMON),
            waiting("waiting for the reply", most_seconds),
        ):
            result = run_interruptibly(call())
    except KeyboardInterrupt:
        if "migration" in params:
            tell("interrupted; `status` tells what came of the request")
        raise
    # Of the methods here it is the one that a back end has too, with a result of its own.
    if arguments.method == "info" and "targets" not in result:
        raise Usage(NOT_A_DAEMON)
    return result


def _params(arguments: argparse.Namespace) -> dict[str, Any]:
    given = vars(arguments)
    params: dict[str, Any] = {}
    if "state" in given:
        params |= state_params(arguments)
        params["target"] = _target(arguments)
    for name in ("migration", "deadline_ms", "device", "committer"):
        if given.get(name) is not None:
            params[name] = given[name]
    return params


def target_params(arguments: argparse.Namespace) -> dict[str, Any]:
    """The target that a command line names, as a parameter.

    Raises:
        Usage: it cannot be used.
    """
    return {"target": _target(arguments)}


def state_params(arguments: argparse.Namespace) -> dict[str, Any]:
    """The state that a command line names, as a parameter.

    Raises:
        Usage, InvalidState: it cannot be used.
    """
    return {"state": _state(arguments.state, arguments.of_device)}


def moved_params(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same, with what the file tells beside the state: what is missing, and of the rings.

    Raises:
        Usage, InvalidState: it cannot be used.
    """
    found = _found(arguments.state, arguments.of_device)
    return {
        "state": _plain(found, arguments.state),
        "missing": [asdict(each) for each in found.missing],
        "rings": [{"queue": queue, "base": base} for queue, base in found.rings],
    }


def _state(name: str, device: str | None) -> dict[str, Any]:
    """A file's state as the API has it; what the file left open is told on standard error."""
    return _plain(_found(name, device), name)


def _found(name: str, device: str | None) -> "Found":
    # Formats are not for everyone who asks a daemon.
    from vdpad.cli.state_files import found_in

    return found_in(name, device)


def _plain(found: "Found", name: str) -> dict[str, Any]:
    from vdpad.cli.state_files import remarks, state_of
    from vdpad.state.formats import native

    try:
        state = state_of(found, name)
    except InvalidState as error:
        raise InvalidState(str(error), [_below_state(each) for each in error.problems]) from None
    for remark in remarks(found):
        tell(f"{name}: {remark}")
    return native.plain(state)


def _below_state(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem by its path in the request, as the daemon would have told it."""
    path = problem["path"]
    return {**problem, "path": f"state.{path}" if path else "state"}


def _target(arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.software is not None:
        return {"kind": "software", "name": arguments.software}
    if arguments.vhost_vdpa is not None:
        named = "path" if "/" in arguments.vhost_vdpa else "device"
        return {"kind": "vhost-vdpa", named: arguments.vhost_vdpa}
    text = arguments.target
    # Whatever the locale, a letter is that letter; JSON is UTF-8.
    data = _read(text[1:]) if text.startswith("@") else text.encode(errors="surrogateescape")
    return _json_object(data, "the target")


def _read(name: str) -> bytes:
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            data = file.read(_MAX_TARGET + 1)
    except (OSError, ValueError) as error:
        raise Usage(f"{name}: {why(error)}") from error
    if len(data) > _MAX_TARGET:
        raise Usage(f"{name}: expected a target of at most {_MAX_TARGET} bytes, got more")
    return data


def _json_object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = strict_json.loads(data, _MOST)
    except strict_json.NotJson as error:
        raise Usage(f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise Usage(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value
