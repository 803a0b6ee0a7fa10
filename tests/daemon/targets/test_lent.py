"""Lent rings: what is refused before a byte of it is written, and a VMM's device restored."""

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import Lender, lending, memfd, moved
from tests.daemon.support import (
    FEATURES,
    HASH_REPORT,
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    is_error,
    is_operation,
    is_report,
    vlans,
)
from tests.support.daemon import Daemon, running
from tests.support.descriptors import open_descriptors
from tests.support.waiting import GUARD

# Linux's fcntl.h; the fcntl module has it from 3.12 on only.
F_SEAL_FUTURE_WRITE = 0x10


def wish(lender: Lender, migration: str = "vm-1", **more: Any) -> Json:
    return {"migration": migration, "state": vlans(1, 2, 3), "target": lender.target, **more}


# --- bad-lend: the descriptors ---


Bend = Callable[[Lender, ExitStack], list[int]]
BENT: dict[str, Bend] = {}


def bent(function: Bend) -> Bend:
    BENT[function.__name__.replace("_", " ")] = function
    return function


def owned(fd: int, stack: ExitStack) -> int:
    stack.callback(os.close, fd)
    return fd


def own_memory(stack: ExitStack, size: int, *seals: int) -> int:
    return owned(memfd(size, *seals), stack)


@bent
def none(lender: Lender, _: ExitStack) -> list[int]:
    return []


@bent
def only_the_memory(lender: Lender, _: ExitStack) -> list[int]:
    return lender.fds[:1]


@bent
def no_call(lender: Lender, _: ExitStack) -> list[int]:
    return lender.fds[:2]


@bent
def one_too_many(lender: Lender, _: ExitStack) -> list[int]:
    return [*lender.fds, lender.fds[2]]


@bent
def twenty(lender: Lender, _: ExitStack) -> list[int]:
    return (lender.fds * 7)[:20]


@bent
def all_that_a_datagram_takes(lender: Lender, _: ExitStack) -> list[int]:
    return (lender.fds * 85)[:253]


@bent
def the_wrong_way_round(lender: Lender, _: ExitStack) -> list[int]:
    return lender.fds[::-1]


@bent
def thrice_the_memory(lender: Lender, _: ExitStack) -> list[int]:
    return lender.fds[:1] * 3


@bent
def thrice_the_kick(lender: Lender, _: ExitStack) -> list[int]:
    return lender.fds[1:2] * 3


@bent
def an_unsealed_memfd(lender: Lender, stack: ExitStack) -> list[int]:
    return [own_memory(stack, lender.ring["memory"]["size"]), *lender.fds[1:]]


@bent
def a_memfd_sealed_against_growing_only(lender: Lender, stack: ExitStack) -> list[int]:
    size = lender.ring["memory"]["size"]
    return [own_memory(stack, size, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL), *lender.fds[1:]]


@bent
def a_memfd_that_is_too_short(lender: Lender, stack: ExitStack) -> list[int]:
    size = lender.ring["memory"]["size"] - 1
    return [own_memory(stack, size, fcntl.F_SEAL_SHRINK), *lender.fds[1:]]


@bent
def an_empty_memfd(lender: Lender, stack: ExitStack) -> list[int]:
    return [own_memory(stack, 0, fcntl.F_SEAL_SHRINK), *lender.fds[1:]]


@bent
def a_memfd_sealed_against_writing(lender: Lender, stack: ExitStack) -> list[int]:
    size = lender.ring["memory"]["size"]
    return [own_memory(stack, size, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE), *lender.fds[1:]]


@bent
def a_memfd_sealed_against_future_writing(lender: Lender, stack: ExitStack) -> list[int]:
    size = lender.ring["memory"]["size"]
    return [own_memory(stack, size, fcntl.F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE), *lender.fds[1:]]


@bent
def a_memfd_that_is_read_only(lender: Lender, stack: ExitStack) -> list[int]:
    return [owned(os.open(f"/proc/self/fd/{lender.fds[0]}", os.O_RDONLY), stack), *lender.fds[1:]]


@bent
def a_memfd_that_is_a_path_only(lender: Lender, stack: ExitStack) -> list[int]:
    return [owned(os.open(f"/proc/self/fd/{lender.fds[0]}", os.O_PATH), stack), *lender.fds[1:]]


@bent
def a_file_as_the_memory(lender: Lender, stack: ExitStack) -> list[int]:
    return [owned(os.open(__file__, os.O_RDONLY), stack), *lender.fds[1:]]


@bent
def zeros_as_the_memory(lender: Lender, stack: ExitStack) -> list[int]:
    return [owned(os.open("/dev/zero", os.O_RDWR), stack), *lender.fds[1:]]


@bent
def a_socket_as_the_memory(lender: Lender, stack: ExitStack) -> list[int]:
    return [stack.enter_context(socket.socket()).fileno(), *lender.fds[1:]]


@bent
def a_directory_as_the_memory(lender: Lender, stack: ExitStack) -> list[int]:
    return [owned(os.open("/", os.O_RDONLY), stack), *lender.fds[1:]]


def pipe(stack: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    return owned(reading, stack), owned(writing, stack)


@bent
def a_pipe_as_the_kick(lender: Lender, stack: ExitStack) -> list[int]:
    return [lender.fds[0], pipe(stack)[1], lender.fds[2]]


@bent
def a_pipe_as_the_call(lender: Lender, stack: ExitStack) -> list[int]:
    return [*lender.fds[:2], pipe(stack)[0]]


@bent
def a_file_as_the_kick(lender: Lender, stack: ExitStack) -> list[int]:
    return [lender.fds[0], own_memory(stack, 4096), lender.fds[2]]


@bent
def a_terminal_as_the_call(lender: Lender, stack: ExitStack) -> list[int]:
    ours, theirs = (owned(end, stack) for end in os.openpty())
    assert os.isatty(ours)
    return [*lender.fds[:2], theirs]


@pytest.fixture
def bend(request: pytest.FixtureRequest) -> Bend:
    return BENT[request.param]


@pytest.mark.parametrize("bend", BENT, indirect=True)
async def test_descriptors_that_cannot_serve_are_refused_and_a_proper_lend_then_works(
    caller: Caller, bend: Bend
) -> None:
    async with lending() as lender:
        await caller.result("prepare", **wish(lender))
        before = open_descriptors()
        with ExitStack() as stack:
            fds = bend(lender, stack)
            for method, params in (("commit", {"migration": "vm-1"}), ("restore", wish(lender))):
                error = await caller.error(method, fds, **params)
                assert is_error(error, "bad-lend", "reason")
                assert error["data"]["reason"]
        assert open_descriptors() == before
        assert lender.indices() == (0, 0)
        assert is_operation(await caller.result("status", migration="vm-1"), "prepared")
        report = await caller.result("commit", lender.fds, migration="vm-1")
        assert is_report(report, "restored")
        assert lender.device.net.settings()["vlans"] == [1, 2, 3]


async def test_a_restore_whose_lend_is_refused_leaves_it_prepared(caller: Caller) -> None:
    async with lending() as lender:
        assert is_error(await caller.error("restore", **wish(lender)), "bad-lend", "reason")
        assert is_operation(await caller.result("status", migration="vm-1"), "prepared")
        assert is_report(await caller.result("restore", lender.fds, **wish(lender)), "restored")


async def test_what_was_restored_needs_no_descriptors_to_be_told_again(caller: Caller) -> None:
    async with lending() as lender:
        report = await caller.result("restore", lender.fds, **wish(lender))
        assert await caller.result("restore", **wish(lender)) == report
        assert await caller.result("commit", lender.fds, migration="vm-1") == report
        assert lender.indices() == (3, 3)
        assert report["ring"] == {"next_available": 3, "next_used": 3}


# --- bad-lend: the geometry ---


IOVA = 0x100000
GEOMETRIES: dict[str, Callable[[Json], Json]] = {
    "size 0": lambda ring: {"size": 0},
    "size 1": lambda ring: {"size": 1},
    "size 3": lambda ring: {"size": 3},
    "size 63": lambda ring: {"size": 63},
    "size 65536": lambda ring: {"size": 65536},
    "size larger than the parts leave": lambda ring: {"size": 128},
    "descriptors misaligned": moved(descriptors=8),
    "available misaligned": moved(available=1),
    "used misaligned": moved(used=2),
    "descriptors before the memory": moved(descriptors=-16),
    "available past the memory": moved(available=1 << 30),
    "used at the memory's end": lambda ring: {
        "used": ring["memory"]["iova"] + ring["memory"]["size"] - 64 * 8
    },
    "buffers past the memory": lambda ring: {
        "buffers": {**ring["buffers"], "size": ring["buffers"]["size"] + 1}
    },
    "buffers before the memory": moved(buffers={"iova": 0}),
    "available over descriptors": lambda ring: {"available": ring["descriptors"]},
    "available over the last descriptor": moved(available=-2),
    "used over available": lambda ring: {"used": ring["available"]},
    "buffers over used": lambda ring: {"buffers": {"iova": ring["used"], "size": 64}},
    "buffers over descriptors": lambda ring: {"buffers": {"iova": ring["descriptors"], "size": 64}},
    "buffers of 31 bytes": moved(buffers={"size": 31}),
    "memory that ends past 64 bits": moved(memory={"size": (1 << 64) - 1}),
    "memory of one byte": moved(memory={"size": 1}),
    "memory elsewhere": moved(memory={"iova": IOVA + 4096}),
    "parts at the end of 64 bits": lambda ring: {"used": (1 << 64) - 4},
}


@pytest.mark.parametrize("change", GEOMETRIES.values(), ids=GEOMETRIES)
async def test_a_geometry_that_makes_no_sense_is_refused(
    caller: Caller, change: Callable[[Json], Json]
) -> None:
    async with lending() as lender:
        target = lender.target_with(**change(lender.ring))
        asked = {"state": vlans(1), "target": target}
        for method, params in (
            ("check", asked),
            ("prepare", {"migration": "vm-1", **asked}),
            ("restore", {"migration": "vm-1", **asked}),
        ):
            fds = lender.fds if method == "restore" else []
            error = await caller.error(method, fds, **params)
            assert is_error(error, "bad-lend", "reason")
        assert await caller.listed() == []
        assert lender.indices() == (0, 0)


@pytest.mark.parametrize(
    ("ring", "place"),
    [
        ({"size": "64"}, "size"),
        ({"size": True}, "size"),
        ({"size": -64}, "size"),
        ({"size": 1 << 64}, "size"),
        ({"memory": {"iova": -1, "size": 4096}}, "memory.iova"),
        ({"memory": {"iova": 0, "size": 0}}, "memory.size"),
        ({"memory": {"iova": 0, "size": 1 << 64}}, "memory.size"),
        ({"used": 1 << 64}, "used"),
        ({"used": 1.0}, "used"),
        ({"buffers": [0, 4096]}, "buffers"),
        ({"next_available": 65536}, "next_available"),
        ({"next_used": -1}, "next_used"),
        ({"indirect": 1}, "indirect"),
    ],
    ids=str,
)
async def test_a_geometry_of_the_wrong_types_is_invalid(
    caller: Caller, ring: Json, place: str
) -> None:
    async with lending() as lender:
        target = lender.target_with(**ring)
        error = await caller.error("check", state=vlans(1), target=target)
    assert is_error(error, "invalid-params", "problems")
    assert [problem["path"] for problem in error["data"]["problems"]] == [f"target.ring.{place}"]


@pytest.mark.parametrize("feature", ["RING_PACKED", "bit_34"])
async def test_a_ring_of_another_kind_is_refused(caller: Caller, feature: str) -> None:
    async with lending() as lender:
        target = {**lender.target, "features": [*FEATURES, feature]}
        for method, named in (("check", {}), ("prepare", {"migration": "vm-1"})):
            error = await caller.error(method, **named, state=vlans(1), target=target)
            assert is_error(error, "bad-lend", "reason")


@pytest.mark.parametrize("start_index", [0, 65500])
async def test_a_device_that_tells_of_whole_batches_is_restored(
    caller: Caller, start_index: int
) -> None:
    features = [*FEATURES, "IN_ORDER"]
    async with lending(features, start_index=start_index) as lender:
        report = await caller.result("restore", lender.fds, **wish(lender))
        assert is_report(report, "restored")
        assert lender.device.net.settings()["vlans"] == [1, 2, 3]
        stands = (start_index + 3) & 0xFFFF
        assert report["ring"] == {"next_available": stands, "next_used": stands}


@pytest.mark.parametrize(("there", "is_taken"), [(512 * 1024, True), (512 * 1024 - 4096, False)])
async def test_of_large_buffers_512_kib_are_used(
    caller: Caller, there: int, is_taken: bool
) -> None:
    async with lending(start=False) as lender:
        begin = lender.offset(lender.ring["buffers"]["iova"])
        begin += -begin % 4096
        iova = lender.ring["memory"]["iova"]
        target = lender.target_with(
            memory={"iova": iova, "size": 4 << 20},
            buffers={"iova": iova + begin, "size": 2 << 20},
        )
        with ExitStack() as stack:
            memory = own_memory(stack, begin + there)
            os.ftruncate(memory, 4 << 20)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            asked = {**wish(lender, deadline_ms=1), "target": target}
            error = await caller.error("restore", [memory, *lender.fds[1:]], **asked)
    if is_taken:
        assert is_error(error, "timeout", "report")
    else:
        assert is_error(error, "bad-lend", "reason")
        assert f"a hole at offset {begin + there:#x}" in error["message"]


async def test_a_command_that_the_buffers_do_not_take_is_incompatible(caller: Caller) -> None:
    async with lending() as lender:
        target = lender.target_with(buffers={**lender.ring["buffers"], "size": 32})
        check = await caller.result("check", state=STATE, target=target)
        assert {problem["path"] for problem in check["problems"]} == {"rss"}
        error = await caller.error("prepare", migration="vm-1", state=STATE, target=target)
        assert is_error(error, "incompatible", "problems")
        assert error["data"]["problems"] == check["problems"]


# --- bad-lend: the ring ---


@pytest.mark.parametrize(("available", "used"), [(1, 0), (0, 1), (0, 65535), (7, 3)])
async def test_a_ring_that_is_not_idle_is_refused(
    caller: Caller, available: int, used: int
) -> None:
    async with lending(start=False) as lender:
        with lender.mapped() as memory:
            for part, index in (("available", available), ("used", used)):
                at = lender.offset(lender.ring[part]) + 2
                memory[at : at + 2] = index.to_bytes(2, "little")
            before = bytes(memory)
            error = await caller.error("restore", lender.fds, **wish(lender))
            assert is_error(error, "bad-lend", "reason")
            assert bytes(memory) == before


@pytest.mark.parametrize(
    "said",
    [{"next_available": 1}, {"next_used": 1}, {"next_available": 0, "next_used": 65535}],
    ids=str,
)
async def test_a_ring_that_stands_elsewhere_than_it_is_said_to_is_refused(
    caller: Caller, said: Json
) -> None:
    async with lending() as lender:
        lender.target = lender.target_with(**said)
        error = await caller.error("restore", lender.fds, **wish(lender))
        assert is_error(error, "bad-lend", "reason")
        assert lender.indices() == (0, 0)


@pytest.mark.parametrize("method", ["check", "prepare"])
async def test_a_ring_that_is_said_to_be_busy_is_refused_before_its_commit(
    caller: Caller, method: str
) -> None:
    async with lending() as lender:
        lender.target = lender.target_with(next_available=3, next_used=2)
        params = wish(lender)
        if method == "check":
            del params["migration"]
        error = await caller.error(method, **params)
        assert is_error(error, "bad-lend", "reason")
        assert "next_available 3 and next_used 2" in error["message"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"next_available": 65500},
        {"next_used": 65500},
        {"next_available": 65500, "next_used": 65500},
    ],
    ids=str,
)
async def test_a_ring_that_stands_where_it_is_said_to_is_taken(caller: Caller, said: Json) -> None:
    async with lending(start_index=65500) as lender:
        lender.target = lender.target_with(**said)
        report = await caller.result("restore", lender.fds, **wish(lender))
        assert is_report(report, "restored")
        assert report["ring"] == {"next_available": 65503, "next_used": 65503}


async def test_a_descriptor_that_cannot_be_duplicated_leaves_no_other_behind(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    duplicate = os.dup
    left = iter([True, True, False])

    def dup(fd: int) -> int:
        if next(left):
            return duplicate(fd)
        raise OSError(24, "Too many open files")

    async with lending() as lender:
        await caller.result("prepare", **wish(lender))
        before = open_descriptors()
        with monkeypatch.context() as patched:
            patched.setattr("vdpad.queues.lent_queue.os.dup", dup)
            await caller.error("commit", lender.fds, migration="vm-1")
        assert open_descriptors() == before
        assert is_operation(await caller.result("status", migration="vm-1"), "prepared")


# --- a VMM and a daemon ---


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("lent"))
    try:
        yield daemon.ready()
    finally:
        daemon.stop()


WITHOUT_EVENT_IDX = [name for name in FEATURES if name != "RING_EVENT_IDX"]
WITHOUT = pytest.mark.parametrize(
    "features", [FEATURES, WITHOUT_EVENT_IDX], ids=["event-idx", "flags"]
)


@WITHOUT
@pytest.mark.parametrize("start_index", [0, 65500])
@pytest.mark.parametrize("ring_size", [2, 8, 64, 256])
async def test_a_lent_device_holds_the_whole_state(
    process: Daemon, features: list[str], start_index: int, ring_size: int
) -> None:
    state = {**STATE, "features": features}
    async with lending(features, start_index=start_index, ring_size=ring_size) as lender:
        with Caller(process.socket) as caller:
            name = f"whole-{len(features)}-{start_index}-{ring_size}"
            before = open_descriptors()
            report = await caller.result(
                "restore", lender.fds, migration=name, state=state, target=lender.target
            )
        assert is_report(report, "restored")
        assert report["applied"] == STATE_COMMANDS
        assert lender.device.net.settings() == state
        stands = (start_index + STATE_COMMANDS) & 0xFFFF
        assert report["ring"] == {"next_available": stands, "next_used": stands}
        assert lender.indices() == (stands, stands)
        # What was lent is still the lender's own.
        assert open_descriptors().keys() <= before.keys()


async def test_a_lent_device_holds_a_hash_report(process: Daemon) -> None:
    async with lending() as lender:
        with Caller(process.socket) as caller:
            report = await caller.result(
                "restore", lender.fds, migration="hash", state=HASH_REPORT, target=lender.target
            )
        assert is_report(report, "restored")
        held = lender.device.net.settings()
        assert {part: held[part] for part in HASH_REPORT} == HASH_REPORT


@WITHOUT
@pytest.mark.parametrize("start_index", [0, 65500])
async def test_4094_vlans_go_through_a_lent_ring(
    process: Daemon, features: list[str], start_index: int
) -> None:
    async with lending(features, start_index=start_index) as lender:
        with Caller(process.socket) as caller:
            name = f"vlans-{len(features)}-{start_index}"
            asked = {"migration": name, "state": vlans([1, 4094]), "target": lender.target}
            prepared = await caller.result("prepare", **asked)
            report = await caller.result("commit", lender.fds, migration=name)
        assert is_report(report, "restored")
        assert report["applied"] == prepared["commands"] == 4094
        assert 1 <= report["doorbells"] <= prepared["doorbells"]
        assert lender.device.net.settings()["vlans"] == list(range(1, 4095))
        stands = (start_index + 4094) & 0xFFFF
        assert lender.indices() == (stands, stands)


async def test_kick_and_call_that_are_swapped_are_named_at_the_deadline(caller: Caller) -> None:
    async with lending() as lender:
        memory, kick, call = lender.fds
        asked = wish(lender, deadline_ms=50)
        error = await caller.error("restore", [memory, call, kick], **asked)
    assert is_error(error, "timeout", "report")
    assert "available index 3 and used index 0" in error["message"]
    assert "that kick and call are not swapped" in error["message"]


async def test_event_idx_that_a_device_ignores_is_named_at_the_deadline(caller: Caller) -> None:
    without = [name for name in FEATURES if name != "RING_EVENT_IDX"]
    async with lending(without) as lender:
        claimed = {**lender.target, "features": FEATURES}
        asked = {**wish(lender), "state": vlans(*range(1, 1000)), "target": claimed}
        error = await caller.error("restore", lender.fds, **asked, deadline_ms=50)
    assert is_error(error, "timeout", "report")
    assert "like one that ignores RING_EVENT_IDX" in error["message"]


async def test_only_the_drivers_parts_of_the_memory_are_written(process: Daemon) -> None:
    """No device answers here, so whatever changes was the daemon's doing."""
    async with lending(start=False) as lender:
        ring = lender.ring
        with lender.mapped() as memory:
            before = bytes(memory)
            with Caller(process.socket) as caller:
                asked = {"migration": "unserved", "state": STATE, "target": lender.target}
                error = await caller.error("restore", lender.fds, **asked, deadline_ms=50)
            assert is_error(error, "timeout", "report")
            after = bytes(memory)
        changed = [at for at, byte in enumerate(after) if byte != before[at]]
        its_own = [
            range(lender.offset(at), lender.offset(at) + size)
            for at, size in (
                (ring["descriptors"], 16 * ring["size"]),
                (ring["available"], 4 + 2 * ring["size"] + 2),
                (ring["buffers"]["iova"], ring["buffers"]["size"]),
            )
        ]
    assert changed
    assert all(any(at in part for part in its_own) for at in changed)


async def test_two_lenders_are_served_at_once(process: Daemon) -> None:
    async with lending() as one, lending() as two:
        with Caller(process.socket) as first, Caller(process.socket) as second:
            asked = {"state": vlans([1, 2000])}
            reports = await asyncio.gather(
                first.result("restore", one.fds, migration="one", target=one.target, **asked),
                second.result("restore", two.fds, migration="two", target=two.target, **asked),
            )
        assert all(is_report(report, "restored") for report in reports)
        assert one.device.net.settings() == two.device.net.settings()


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_kick_that_is_full_does_not_stop_the_daemon(
    process: Daemon, blocking: bool
) -> None:
    async with lending(start=False) as lender:
        kick = lender.fds[1]
        os.set_blocking(kick, not blocking)
        os.write(kick, (2**64 - 2).to_bytes(8, "little"))
        os.set_blocking(kick, blocking)
        lender.device.start()
        with Caller(process.socket) as caller:
            asked = {"migration": f"full-{blocking}", "state": vlans(1), "target": lender.target}
            assert is_report(await caller.result("restore", lender.fds, **asked), "restored")


async def test_a_kick_that_is_made_to_block_later_does_not_stop_the_daemon(tmp_path: Path) -> None:
    """The flags are of the open file, which the lender has too: it may change them at any time."""
    features = ["CTRL_VQ", "CTRL_VLAN"]
    async with running(tmp_path) as daemon, lending(features, start=False, ring_size=4) as lender:
        kick = lender.fds[1]
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            asked = {"migration": "vm-1", "state": vlans([1, 20]), "target": lender.target}
            reply = asyncio.create_task(
                caller.call("restore", lender.fds, **asked, deadline_ms=2000)
            )
            await readable(kick)
            os.write(kick, (2**64 - 3).to_bytes(8, "little"))
            os.set_blocking(kick, True)
            # Answers as a device does, and asks for a doorbell each time.
            ring = lender.device._ring
            for chain in ring.take():
                ring.answer(chain, b"\0")
                ring.idle()
                ring.put(chain.head, 1)
            try:
                async with asyncio.timeout(8):
                    await other.result("info")
                    answered = True
            except TimeoutError:
                answered = False
            os.read(kick, 8)
            await reply
    assert answered


async def readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(GUARD):
            await ready.wait()
    finally:
        loop.remove_reader(fd)


async def test_a_refusal_says_what_to_do(process: Daemon) -> None:
    async with lending() as lender:
        with Caller(process.socket) as caller:
            asked = {"migration": "told", "state": vlans(1), "target": lender.target}
            error = await caller.error("restore", **asked)
    assert "three descriptors (memory, kick, call), got 0" in error["message"]
    assert error["data"]["reason"] == error["message"]
    assert json.dumps(error)
