"""What one request takes of the event loop where many operations are known: by counting."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from tests.daemon.operations.shown import ME
from tests.daemon.support import Caller, software, vlans
from vdpad.daemon.api.listing import listed
from vdpad.daemon.api.methods import plain
from vdpad.daemon.api.params import MAX_LISTED, StatusParams
from vdpad.daemon.daemon import Service
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.requester import Requester
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.settings import Settings
from vdpad.wire.streams import MAX_MESSAGE

FEW, MANY = 30, 130
KEPT = 130

OPERATOR = Requester(ME.user, is_operator=True)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, Python's and others'."""
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def a_list(operations: Operations, params: StatusParams) -> Callable[[], object]:
    """Answers `status` but for the sending."""
    return lambda: plain("status", listed(operations.newest_first(OPERATOR), params, MAX_MESSAGE))


async def restored(caller: Caller, first: int, last: int) -> None:
    """So many more operations are known that have ended."""
    for number in range(first, last):
        wish = {"migration": f"vm-{number}", "state": vlans(1), "target": software()}
        await caller.result("restore", **wish)


@pytest.mark.parametrize(
    ("params", "of_each"),
    [
        (StatusParams(limit=10), 3),
        (StatusParams(limit=10, states=(State.RESTORED,)), 4),
        (StatusParams(limit=10, after="vm-15"), 4),
        (StatusParams(limit=MAX_LISTED), 35),
    ],
    ids=["newest", "in-a-state", "page", "all"],
)
async def test_a_list_takes_by_what_it_shows(
    tmp_path: Path, params: StatusParams, of_each: int
) -> None:
    """What there is more takes so many calls of each, and what is shown some more."""
    service = Service(Settings(socket=tmp_path / "vdpad.sock"))
    path = await service.start()
    with Caller(path) as caller:
        await restored(caller, 0, FEW)
        few = calls_of(a_list(service._operations, params))
        await restored(caller, FEW, MANY)
        many = calls_of(a_list(service._operations, params))
    await service.stop()
    assert many - few <= of_each * (MANY - FEW), (few, many)


async def test_one_more_takes_no_more_where_as_many_are_kept_as_may(tmp_path: Path) -> None:
    """Where the registry is full, each that comes has the oldest go."""
    taken = {}
    for kept in (FEW, KEPT):
        settings = {"socket": tmp_path / f"{kept}.sock", "limits": {"operations_kept": kept}}
        service = Service(Settings.model_validate(settings))
        path = await service.start()
        with Caller(path) as caller:
            await restored(caller, 0, kept)
            registry = service._operations._registry
            taken[kept] = calls_of(partial(registry.make_room, ME.user, []))
        await service.stop()
        await asyncio.sleep(0)
    assert taken[KEPT] <= taken[FEW] + 10, taken
