"""Each of these inputs decides as it should, out of a file and out of a pipe."""

import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest

from tests.cases import FOLDER, case
from tests.daemon.support import Caller, is_report, serving, software
from tests.support.pipe import Pipe
from vdpad.state.formats.native import plain
from vdpad.state.formats.recognise import read
from vdpad.state.found import FormatError, Found

# What is no input.
_NONE = {"__init__.py", "test_cases.py", "__pycache__"}

Opened = Callable[[bytes], BinaryIO]


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """Asks a daemon with a device that takes all that the states here set."""
    async with serving(tmp_path) as path:
        with Caller(path) as each:
            yield each


class Right(NamedTuple):
    """What is right of a device in an input."""

    device: str = ""
    commands: int | None = 0
    """How many put it back; None where it is a problem."""
    vlans: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    """A part of each."""
    problem: str = ""
    """A part of the only one."""


RIGHT: dict[str, tuple[Right, ...] | str] = {
    "tso_no_csum.json": (Right(commands=3, vlans=(5,), notes=("without GUEST_CSUM",)),),
    # The specification asks for no CTRL_VQ beside the offloads, and there is nothing to send.
    "offloads_no_cvq.json": (Right(),),
    "hash_report_no_cvq.json": (Right(notes=("HASH_REPORT without CTRL_VQ",)),),
    "two_nics_one_with_backend_state.stream": (
        Right("0000:00:03.0", 5, (5,), ("'virtio-net-device/backend' has 48 bytes",)),
        Right("0000:00:04.0", 5, (7,)),
    ),
    "one_nic_with_coalescing_subsection.stream": (
        Right("0000:00:03.0", None, problem="'virtio-net-device/notf-coal'"),
        Right("0000:00:04.0", 5, (7,)),
    ),
    # It is read in place, as far as it goes: the stream in it was cut behind its header.
    "libvirt_sparse.img": "at byte 146, in the run of sections: expected 1 ",
    "early_section_before_memory.stream.xz": (Right("0000:00:03.0", 0, ()),),
    "coalescing_queues_not_enabled.json": (Right(commands=4),),
}


def file(data: bytes) -> BinaryIO:
    return io.BytesIO(data)


def pipe(data: bytes) -> BinaryIO:
    return io.BufferedReader(Pipe(data))


def test_every_input_has_what_is_right_of_it() -> None:
    assert {each.name for each in FOLDER.iterdir()} - _NONE == set(RIGHT)


@pytest.mark.parametrize("opened", [file, pipe])
@pytest.mark.parametrize("name", RIGHT)
async def test_it_decides_so(name: str, opened: Opened, caller: Caller) -> None:
    right = RIGHT[name]
    if isinstance(right, str):
        with pytest.raises(FormatError, match=right):
            read(opened(case(name)))
        return
    devices = read(opened(case(name))).devices
    for each, found in zip(right, devices, strict=True):
        assert found.device == each.device
        if each.commands is None:
            assert found.state is None
            (problem,) = found.problems
            assert each.problem in problem.message
        else:
            await _is_restored(caller, f"{name}:{found.device}", found, each)


async def _is_restored(caller: Caller, migration: str, found: Found, right: Right) -> None:
    assert found.problems == ()
    assert found.state is not None
    assert found.state.vlans == right.vlans
    assert len(found.notes) == len(right.notes)
    for note, part in zip(found.notes, right.notes, strict=True):
        assert part in note
    wish = {"state": plain(found.state), "target": software()}
    check = await caller.result("check", **wish)
    assert (check["compatible"], check["commands"]) == (True, right.commands)
    report = await caller.result("restore", migration=migration, **wish)
    assert is_report(report, "restored")
    assert report["applied"] == right.commands


async def test_queues_are_enabled_before_their_coalescing_is_set(caller: Caller) -> None:
    """A device must refuse VQ_SET of a queue that is not enabled."""
    state = json.loads(case("coalescing_queues_not_enabled.json"))
    check = await caller.result("check", state=state, target=software())
    commands = [each["command"] for each in check["plan"]]
    assert commands.index("MQ_VQ_PAIRS_SET") < commands.index("NOTF_COAL_VQ_SET")
