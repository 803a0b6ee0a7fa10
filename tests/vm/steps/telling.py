"""How a story tells, waits and is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.waiting import GUARD
from vdpad.queues.vhost_vdpa.errors import VhostVdpaError

Json = dict[str, Any]

A_WHILE = 0.3
"""How long nothing must happen to be taken for nothing, in seconds."""


def tell(**values: object) -> None:
    """One line."""
    print(json.dumps(values), flush=True)


def pause(folder: Path, place: str, **seen: object) -> None:
    """Tells where the story is and what it saw, and waits to be let on."""
    tell(at=place, seen=seen)
    assert until((folder / place).exists), place


def until(true: Callable[[], bool]) -> bool:
    """Waits for it; whether it came."""
    give_up = time.monotonic() + GUARD
    while not true():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def refusal(step: Callable[[], object]) -> str:
    """By which kind of error a step is refused, and what it says."""
    try:
        step()
    except VhostVdpaError as error:
        return f"{type(error).__name__}: {error}"
    return "taken"
