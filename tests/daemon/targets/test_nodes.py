"""Paths of nodes: looked at where nobody else waits, each user's behind his own."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import GUARD
from vdpad.daemon.targets import nodes
from vdpad.daemon.targets.nodes import NodePaths
from vdpad.host import sysfs
from vdpad.service.refusal import Kind, Refusal

ME, OTHER = 1000, 1001
SILENT = Path("/mnt/silent")


class Looked:
    """A look at paths that says nothing of one of them for a while."""

    def __init__(self) -> None:
        self.speaks = threading.Event()
        self.on: list[int] = []

    def name_of(self, path: Path) -> str | None:
        self.on.append(threading.get_ident())
        if path == SILENT:
            self.speaks.wait()
        return path.name


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looked]:
    looked = Looked()
    monkeypatch.setattr(sysfs, "name_of_node", looked.name_of)
    yield looked
    looked.speaks.set()


async def test_what_stands_in_dev_is_looked_at_at_once(looked: Looked) -> None:
    assert await NodePaths().name_of(Path("/dev/vhost-vdpa-0"), ME) == "vhost-vdpa-0"
    assert looked.on == [threading.get_ident()]


@pytest.mark.parametrize("path", ["/dev/shm/node", "/run/node", "node", "/dev/../run/node"])
async def test_all_else_on_a_thread(looked: Looked, path: str) -> None:
    assert await NodePaths().name_of(Path(path), ME) == "node"
    assert looked.on != [threading.get_ident()]


async def test_a_file_system_that_is_silent_is_not_waited_for(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_PATIENCE", 0.01)
    with pytest.raises(Refusal, match="vdpa name") as refusal:
        await NodePaths().name_of(SILENT, ME)
    assert refusal.value.kind is Kind.TIMEOUT


async def test_a_user_waits_behind_his_own_paths_alone(looked: Looked) -> None:
    paths = NodePaths()
    silent = asyncio.create_task(paths.name_of(SILENT, ME))
    await asyncio.sleep(0)
    behind = asyncio.create_task(paths.name_of(Path("/run/mine"), ME))
    assert await paths.name_of(Path("/run/another"), OTHER) == "another"
    assert not behind.done()
    looked.speaks.set()
    assert await silent == "silent"
    assert await behind == "mine"


async def test_so_many_of_his_are_looked_at_and_no_more(looked: Looked) -> None:
    paths = NodePaths()
    asked = [asyncio.create_task(paths.name_of(SILENT, ME)) for _ in range(nodes._MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refusal:
        await paths.name_of(Path("/run/one"), ME)
    assert refusal.value.kind is Kind.OVERLOADED
    assert await paths.name_of(Path("/run/another"), OTHER) == "another"
    looked.speaks.set()
    await asyncio.gather(*asked)
    assert await paths.name_of(Path("/run/one"), ME) == "one"


async def test_who_is_cancelled_leaves_it_to_the_thread(looked: Looked) -> None:
    paths = NodePaths()
    asked = [asyncio.create_task(paths.name_of(SILENT, ME)) for _ in range(nodes._MAX_WAITING)]
    await asyncio.sleep(0)
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)
    with pytest.raises(Refusal):
        await paths.name_of(Path("/run/one"), ME)
    looked.speaks.set()
    async with asyncio.timeout(GUARD):
        while True:
            try:
                assert await paths.name_of(Path("/run/one"), ME) == "one"
            except Refusal:
                await asyncio.sleep(0.01)
            else:
                break
