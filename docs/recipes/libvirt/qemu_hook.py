#!/usr/lib/vdpad/bin/python -I
"""libvirt's hook for QEMU: lets a guest come only where this host takes what it has set.

Called as `qemu GUEST OPERATION SUB-OPERATION EXTRA`, with the guest's XML on standard input. As
qemu-hook.bash, but it goes by the XML: a card is known by its address, none of them is forgotten,
and where it ends up need not be said again. README.md has more.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vdpad.client import Client, Refused
from vdpad.errors import VdpadError
from vdpad.state.formats.native import plain
from vdpad.state.formats.recognise import read

MOVES = Path(os.environ.get("VDPAD_MOVES", "/var/lib/vdpad-moves"))
SOCKET = Path(os.environ.get("VDPAD_SOCKET", "/run/vdpad/io.vdpad"))

# Where vdpad-vhost-user@NAME.socket listens for a VMM, and where its back end is asked.
FRONT_END = re.compile(r"/run/vdpad/vhost-user-([^/]+)\.sock")
BACK_END = "/run/vdpad/vhost-user/{}/io.vdpad"

# In seconds. The guest's migration waits for it.
TIMEOUT = 10.0


class NotLetIn(Exception):
    """Why a guest must not come."""


@dataclass(frozen=True)
class Card:
    """A network card that is a vDPA device, and where its files are."""

    address: str
    files: Path
    target: dict[str, Any] | None
    """As the XML says it; None of a back end."""
    back_end: Path | None

    def text(self, ending: str) -> str | None:
        """What one of its files has; None where it is not there."""
        path = self.files / f"{self.address}.{ending}"
        return path.read_text().strip() if path.exists() else None

    def state(self) -> dict[str, Any]:
        """What the guest has set, from whatever format vdpad reads."""
        path = self.files / f"{self.address}.state"
        if not path.exists():
            raise NotLetIn(f"no state came for it; expected {path}")
        try:
            with path.open("rb") as file:
                devices = read(file).devices
        except VdpadError as error:
            raise NotLetIn(f"{path}: {error}") from error
        if len(devices) != 1:
            raise NotLetIn(f"expected the state of one device in {path}; see vdpactl decode")
        if devices[0].state is None:
            why = "; ".join(f"{each.path}: {each.message}" for each in devices[0].problems)
            raise NotLetIn(f"no valid state in {path}: {why}")
        return plain(devices[0].state)


def cards(xml: bytes, files: Path) -> Iterator[Card]:
    """The cards of a domain that are vdpad's or a vDPA device of QEMU's."""
    for interface in ElementTree.fromstring(xml).iterfind("devices/interface"):
        address, source = interface.find("mac"), interface.find("source")
        if address is None or source is None:
            continue
        mac = address.get("address", "").lower()
        front_end = FRONT_END.fullmatch(source.get("path", ""))
        if interface.get("type") == "vdpa":
            yield Card(mac, files, {"kind": "vhost-vdpa", "path": source.get("dev")}, None)
        elif interface.get("type") == "vhostuser" and front_end:
            yield Card(mac, files, None, Path(BACK_END.format(front_end[1])))


async def check(card: Card) -> None:
    """Whether what this host has for the card takes what came for it.

    Raises:
        NotLetIn, VdpadError: it does not, or cannot be asked.
    """
    state, back_end = card.state(), back_end_of(card)
    if back_end is not None:
        interface = "io.vdpad.BackEnd"
        async with Client(back_end, TIMEOUT, interface=interface) as vdpad:
            found = await vdpad.call("check", state=state)
    else:
        async with Client(SOCKET, TIMEOUT) as vdpad:
            found = await vdpad.check(state, target_of(card))
    if not found["compatible"]:
        problems = (f"{each['path']}: {each['message']}" for each in found["problems"])
        raise NotLetIn("the device cannot take its state: " + "; ".join(problems))


async def prepare(card: Card) -> None:
    """Prepares what somebody will commit; where nobody says whether it was, gives it up."""
    if (named := card.text("commit")) is None:
        return
    migration, committer = named.split()
    state, target = card.state(), target_of(card)
    try:
        async with Client(SOCKET, TIMEOUT) as vdpad:
            await vdpad.prepare(migration, state, target, committer=int(committer))
    except Refused:
        raise  # the name may be another guest's
    except (VdpadError, OSError):
        with contextlib.suppress(VdpadError, OSError):
            await cancel(card)
        raise


async def prepare_all(guest: str, on: Sequence[Card]) -> bool:
    """Whether all could be prepared; if not, those before the first that could not are given up.

    Nothing else is called where this fails.
    """
    for number, card in enumerate(on):
        if not await every(prepare, guest, [card]):
            await every(cancel, guest, on[:number])
            return False
    return True


async def cancel(card: Card) -> None:
    """Gives up what was prepared; what has ended stays as it is."""
    if not (named := (card.text("commit") or "").split()):
        return
    async with Client(SOCKET, TIMEOUT) as vdpad:
        try:
            await vdpad.cancel(named[0])
        except Refused as error:
            if error.kind != "no-such-migration":
                raise


def back_end_of(card: Card) -> Path | None:
    """Where the back end is asked that has the card: as its file says, or else the XML."""
    if (named := card.text("backend")) is None:
        return card.back_end
    return Path(named if "/" in named else BACK_END.format(named))


def target_of(card: Card) -> dict[str, Any]:
    """What the card ends up on: as its file says, or else the XML."""
    named = card.text("target")
    target = json.loads(named) if named else card.target
    if not isinstance(target, dict):
        raise NotLetIn(f"no target for it; expected one in {card.files / card.address}.target")
    return target


async def every(action: Callable[[Card], Awaitable[None]], guest: str, on: Sequence[Card]) -> bool:
    """Whether it could be done for every card; why not is told of each."""
    done = True
    for card in on:
        try:
            await action(card)
        except (NotLetIn, VdpadError, OSError, ValueError) as error:
            # libvirt has a hook's standard error in its own message.
            print(f"{guest}, {card.address}: {error}", file=sys.stderr)
            done = False
    return done


async def main(guest: str, operation: str, *_: str) -> int:
    """0 where libvirt may go on; nothing on standard output leaves the XML as it is."""
    xml, files = sys.stdin.buffer.read(), MOVES / guest
    if guest in (".", "..") or "/" in guest:  # no folder is called so
        return 0
    if operation not in ("migrate", "release") or not files.is_dir():
        return 0
    try:
        on = list(cards(xml, files))
    except ElementTree.ParseError as error:
        print(f"{guest}: expected the guest's XML on standard input: {error}", file=sys.stderr)
        return 1
    if operation == "release":
        await every(cancel, guest, on)
        return 0
    if not await every(check, guest, on):
        return 1
    return 0 if await prepare_all(guest, on) else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("expected GUEST OPERATION SUB-OPERATION EXTRA, as libvirt gives them")
    sys.exit(asyncio.run(main(*sys.argv[1:])))
