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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RUN = Path(os.environ.get("VDPAD_RUN", "/run/vdpad"))
ANNOTATION = "vdpad/move"

# In seconds. The migration's target waits for it.
TIMEOUT = 10.0


class NotLetIn(Exception):
    """Why a guest must not come."""


def call(path: Path, method: str, **parameters: Any) -> dict[str, Any]:
    """The reply's parameters. Varlink: a call and its reply are JSON and a NUL byte each.

    Raises:
        NotLetIn: the reply is an error, or none comes.
    """
    message = json.dumps({"method": method, "parameters": parameters}).encode()
    said = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(message + b"\0")
            while not said.endswith(b"\0"):
                if not (piece := connection.recv(65536)):
                    raise ConnectionError("the connection ended before the reply")
                said += piece
    except OSError as error:
        whose = "vdpad-vhost-user" if "BackEnd" in method else "vdpad"
        raise NotLetIn(f"{path}: {error.strerror or error}; is {whose} running?") from error
    reply: dict[str, Any] = json.loads(said[:-1])
    if "error" in reply:
        raise NotLetIn(f"{reply['error']}: {reply['parameters'].get('message')}")
    found: dict[str, Any] = reply["parameters"]
    return found


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
        path = RUN / "vhost-user" / str(move["backend"]) / "io.vdpad"
        found = call(path, "io.vdpad.BackEnd.Check", **given(move, "state"))
    else:
        found = call(RUN / "io.vdpad", "io.vdpad.Daemon.Check", **given(move, "state", "target"))
    if not found["compatible"]:
        problems = (f"{each['path']}: {each['message']}" for each in found["problems"])
        raise NotLetIn("the device cannot take its state: " + "; ".join(problems))


def prepare(move: Mapping[str, Any]) -> None:
    """Prepares what somebody will commit."""
    if "migration" in move:
        wish = given(move, "migration", "committer", "state", "target")
        call(RUN / "io.vdpad", "io.vdpad.Daemon.Prepare", **wish)


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
    migrates = vmi.get("status", {}).get("migrationState")
    if not migrates or migrates.get("completed") or ANNOTATION not in annotations:
        return {}
    try:
        moves = json.loads(annotations[ANNOTATION])
    except ValueError as error:
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
    if not every(check, moves):
        return 1
    if not every(prepare, moves):
        every(cancel, moves)  # nothing else is called where this fails
        return 1
    print(arguments.domain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
