#!/usr/bin/env python3
"""KubeVirt's hook onDefineDomain: lets a guest come only where this node takes what it has set.

Called by KubeVirt's sidecar-shim as `onDefineDomain --vmi JSON --domain XML`; prints the domain as
it came. It needs Python's own modules and vdpad's folder of sockets, and no vdpad in its image.
README.md says how it gets there, and what stands in the annotation.
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RUN = Path(os.environ.get("VDPAD_RUN", "/run/vdpad"))
ANNOTATION = "vdpad/move"

# In seconds. The migration's target waits for it.
TIMEOUT = 10.0

# Of one message, in bytes.
MAX_MESSAGE = 4 * 1024 * 1024


class NotLetIn(Exception):
    """Why a guest must not come."""


class Refused(NotLetIn):
    """The daemon says so."""


def call(path: Path, method: str, **parameters: Any) -> dict[str, Any]:
    """The reply's parameters. Varlink: a call and its reply are JSON and a NUL byte each.

    Raises:
        Refused: the reply is an error.
        NotLetIn: none comes, or none that makes sense.
    """
    message = json.dumps({"method": method, "parameters": parameters}).encode()
    end = time.monotonic() + TIMEOUT
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(message + b"\0")
            reply = json.loads(received(connection, end))
        found: dict[str, Any] = dict(reply["parameters"])
    except OSError as error:
        whose = "vdpad-vhost-user" if "BackEnd" in method else "vdpad"
        raise NotLetIn(f"{path}: {error.strerror or error}; is {whose} running?") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NotLetIn(f"{path}: the reply makes no sense: {error}") from error
    if "error" in reply:
        raise Refused(f"{reply['error']}: {found.get('message')}")
    return found


def received(connection: socket.socket, end: float) -> bytes:
    """One message, whole by this time, which no piece of it puts off.

    Raises:
        OSError: it is not.
    """
    said = bytearray()
    while not said.endswith(b"\0"):
        connection.settimeout(max(end - time.monotonic(), 0.001))
        if not (piece := connection.recv(65536)):
            raise ConnectionError("the connection ended before the reply")
        said += piece
        if len(said) > MAX_MESSAGE:
            raise ConnectionError("the reply does not end")
    return bytes(said[:-1])


def given(move: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """These of what the annotation says of a card; of what a back end has captured the state.

    Raises:
        NotLetIn: one is not there.
    """
    for key in keys:
        if key not in move:
            raise NotLetIn(f"expected {key} in the annotation {ANNOTATION}")
    wish = {key: move[key] for key in keys}
    state = wish["state"]
    if isinstance(state, dict) and "state" in state:
        wish["state"] = state = state["state"]
    if state is None:
        raise NotLetIn("state: the back end knew of no guest, or no state can say it")
    return wish


def check(move: Mapping[str, Any]) -> None:
    """Whether what this node has for a card takes its state.

    Raises:
        NotLetIn: it does not, or cannot be asked.
    """
    if "backend" in move:
        path = RUN / "vhost-user" / name_of(move["backend"]) / "io.vdpad"
        found = call(path, "io.vdpad.BackEnd.Check", **given(move, "state"))
    else:
        found = call(RUN / "io.vdpad", "io.vdpad.Daemon.Check", **given(move, "state", "target"))
    if found.get("compatible") is not True:
        problems = (f"{each['path']}: {each['message']}" for each in found.get("problems", ()))
        raise NotLetIn("the device cannot take its state: " + "; ".join(problems))


def name_of(back_end: Any) -> str:
    """A back end's, which leads to no other folder.

    Raises:
        NotLetIn: it is none.
    """
    if not isinstance(back_end, str) or "/" in back_end or back_end in ("", ".", ".."):
        raise NotLetIn(f"expected the name of a back end, got {back_end!r}")
    return back_end


def prepare(move: Mapping[str, Any]) -> None:
    """Prepares what somebody will commit; where nobody says whether it was, gives it up."""
    if "migration" not in move:
        return
    wish = given(move, "migration", "committer", "state", "target")
    try:
        call(RUN / "io.vdpad", "io.vdpad.Daemon.Prepare", **wish)
    except Refused:
        raise  # the name may be another guest's
    except NotLetIn:
        cancel(move)
        raise


def cancel(move: Mapping[str, Any]) -> None:
    """Gives up what was prepared."""
    if "migration" in move:
        with contextlib.suppress(NotLetIn):  # nothing was
            call(RUN / "io.vdpad", "io.vdpad.Daemon.Cancel", migration=move["migration"])


def moves_of(vmi: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What came for the guest's cards, by their names; nothing where no guest comes here.

    Raises:
        NotLetIn: the annotation is not what it should be.
    """
    annotations = vmi.get("metadata", {}).get("annotations") or {}
    migrates = (vmi.get("status") or {}).get("migrationState")
    if not migrates or migrates.get("completed") or ANNOTATION not in annotations:
        return {}
    try:
        moves = json.loads(annotations[ANNOTATION])
    except (ValueError, RecursionError) as error:
        raise NotLetIn(f"expected JSON: {error}") from error
    if not isinstance(moves, dict) or not all(isinstance(each, dict) for each in moves.values()):
        raise NotLetIn("expected a JSON object with an object for each card")
    return moves


def every(
    action: Callable[[Mapping[str, Any]], None], moves: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Whether it could be done for every card; why not is told of each, in the sidecar's log."""
    done = True
    for name, move in moves.items():
        try:
            action(move)
        except NotLetIn as error:
            print(f"{name}: {error}", file=sys.stderr)
            done = False
    return done


def prepare_all(moves: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all could be prepared; if not, those before the first that could not are given up.

    Nothing else is called where this fails.
    """
    prepared: dict[str, Mapping[str, Any]] = {}
    for name, move in moves.items():
        if not every(prepare, {name: move}):
            every(cancel, prepared)
            return False
        prepared[name] = move
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vmi", required=True, metavar="JSON")
    parser.add_argument("--domain", required=True, metavar="XML")
    arguments = parser.parse_args()
    try:
        moves = moves_of(json.loads(arguments.vmi))
    except NotLetIn as error:
        print(f"{ANNOTATION}: {error}", file=sys.stderr)
        return 1
    if not every(check, moves) or not prepare_all(moves):
        return 1
    print(arguments.domain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
