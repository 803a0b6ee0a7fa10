"""What an orchestrator lays down before a guest comes, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.clients.programs import EXAMPLES, ROOT
from vdpad.client import Client, Refused

RECIPES = ROOT / "docs" / "recipes"
STATE: dict[str, Any] = json.loads((EXAMPLES / "state.json").read_text())
TOO_LONG: dict[str, Any] = {**STATE, "rss": {**STATE["rss"], "indirection_table": [0] * 256}}
"""A state that no device here can take, and why, in words."""
WHY = "256 entries; the device takes 128"

SIM0 = {"kind": "software", "name": "sim0"}
STUBBORN = {"kind": "software", "name": "stubborn"}
DEVICES = [{"name": "sim0"}, {"name": "stubborn", "misbehave": {"faults": {"7": "err"}}}]

GUEST = "107"
CARD, OTHER_CARD = "52:54:00:12:34:56", "52:54:00:12:34:57"


class Moves:
    """The folder that hooks look into, of one guest, and the daemon that they ask."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket

    @property
    def env(self) -> dict[str, str]:
        """By which hooks find both."""
        return {"VDPAD_MOVES": str(self.folder), "VDPAD_SOCKET": str(self.socket)}

    def lay(self, card: str = CARD, **files: str | Mapping[str, Any]) -> None:
        """Lays files down for one card, by their endings; without others a state and a target."""
        place = self.folder / GUEST
        place.mkdir(parents=True, exist_ok=True)
        for ending, what in {"state": STATE, **files}.items():
            text = what if isinstance(what, str) else json.dumps(what)
            (place / f"{card}.{ending}").write_text(text + "\n")

    def lay_prepared(self, migration: str, card: str = CARD) -> None:
        """The same for a card whose migration this user will commit."""
        self.lay(card, target=SIM0, commit=f"{migration} {os.getuid()}")

    def commit(self, migration: str) -> None:
        """As the VMM does; the device may refuse."""
        with contextlib.suppress(Refused):
            asyncio.run(self._ask("commit", migration=migration))

    def became(self, migration: str) -> str | None:
        """Of an operation; None where there is none."""
        try:
            return str(asyncio.run(self._ask("status", migration=migration))["state"])
        except Refused as error:
            if error.kind != "no-such-migration":
                raise
            return None

    async def _ask(self, method: str, **params: Any) -> Any:
        async with Client(self.socket) as vdpad:
            return await vdpad.call(method, **params)
