"""Lent packed rings: what a target says of one, what is refused, and a VMM's device restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import Lender, lending, moved
from tests.daemon.support import (
    FEATURES,
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    is_error,
    is_operation,
    vlans,
)
from tests.support.daemon import running

PACKED = [*FEATURES, "RING_PACKED"]
IN_ORDER = [*PACKED, "IN_ORDER"]
WITHOUT_EVENT_IDX = [name for name in PACKED if name != "RING_EVENT_IDX"]


def place(position: int, size: int = 64) -> Json:
    """Where a ring stands so many descriptors behind its beginning."""
    at, wrap = position % size, 1 - position // size % 2
    return {"next_available": at, "next_used": at, "available_wrap": wrap, "used_wrap": wrap}


def wish(lender: Lender, **ring: Any) -> Json:
    return {"migration": "vm-1", "state": vlans(1, 2, 3), "target": lender.target_with(**ring)}


@pytest.mark.parametrize(
    "features", [PACKED, WITHOUT_EVENT_IDX, IN_ORDER], ids=["event-idx", "flags", "in-order"]
)
@pytest.mark.parametrize("size", [2, 7, 64, 100])
async def test_a_lent_device_holds_the_whole_state(
    caller: Caller, size: int, features: list[str]
) -> None:
    state = {**STATE, "features": features}
    for start in sorted({0, 1, size - 1, size, 2 * size - 1}):
        async with lending(features, ring_size=size, start_index=start) as lender:
            report = await caller.result(
                "restore",
                lender.fds,
                migration=f"vm-{start}",
                state=state,
                target=lender.target_with(**place(start, size)),
            )
            assert report["applied"] == STATE_COMMANDS
            held = lender.device.net.settings()
            assert {**held, "features": sorted(held["features"])} == {
                **state,
                "features": sorted(features),
            }
            assert report["ring"] == place(start + 2 * STATE_COMMANDS, size)


async def test_what_is_not_said_of_a_ring_is_as_in_a_fresh_one(caller: Caller) -> None:
    async with lending(PACKED) as lender:
        report = await caller.result("restore", lender.fds, **wish(lender))
        assert report["ring"] == place(6)
        assert await caller.result("restore", **wish(lender)) == report


async def test_the_next_daemon_tells_the_same_of_the_ring(tmp_path: Path) -> None:
    async with lending(PACKED, start_index=62) as lender:
        wanted = wish(lender, **place(62))
        records = {"directory": str(tmp_path / "records")}
        async with running(tmp_path, records=records) as process:
            with Caller(process.socket) as caller:
                report = await caller.result("restore", lender.fds, **wanted)
        assert report["ring"] == place(68)
        async with running(tmp_path, records=records) as process:
            with Caller(process.socket) as caller:
                assert await caller.result("restore", **wanted) == report


GEOMETRIES: dict[str, Callable[[Json], Json]] = {
    "size 0": lambda ring: {"size": 0},
    "size 1": lambda ring: {"size": 1},
    "size 32769": lambda ring: {"size": 32769},
    "size larger than the parts leave": lambda ring: {"size": 65},
    "descriptors misaligned": moved(descriptors=8),
    "driver misaligned": moved(driver=2),
    "device misaligned": moved(device=2),
    "driver before the memory": lambda ring: {"driver": 0},
    "device at the memory's end": lambda ring: {
        "device": ring["memory"]["iova"] + ring["memory"]["size"]
    },
    "device past 64 bits": lambda ring: {"device": (1 << 64) - 4},
    "driver over descriptors": moved(driver=-4),
    "device over driver": lambda ring: {"device": ring["driver"]},
    "buffers over device": lambda ring: {"buffers": {"iova": ring["device"], "size": 64}},
    "buffers of 31 bytes": moved(buffers={"size": 31}),
    "next_available past the end": lambda ring: {"next_available": 64, "next_used": 64},
    "next_used elsewhere": lambda ring: {"next_used": 2},
    "used_wrap elsewhere": lambda ring: {"used_wrap": 0},
}


@pytest.mark.parametrize("change", GEOMETRIES.values(), ids=GEOMETRIES)
async def test_a_geometry_that_makes_no_sense_is_refused(
    caller: Caller, change: Callable[[Json], Json]
) -> None:
    async with lending(PACKED) as lender:
        target = lender.target_with(**change(lender.ring))
        for method, named in (("check", {}), ("prepare", {"migration": "vm-1"})):
            error = await caller.error(method, **named, state=vlans(1), target=target)
            assert is_error(error, "bad-lend", "reason")


@pytest.mark.parametrize(
    ("ring", "place"),
    [
        ({"layout": "Packed"}, "layout"),
        ({"layout": None}, "layout"),
        ({"layout": 1}, "layout"),
        ({"available_wrap": 2}, "available_wrap"),
        ({"used_wrap": True}, "used_wrap"),
        ({"available": 0x100000}, "available"),
        ({"driver": -4}, "driver"),
        ({"device": "0"}, "device"),
        ({"size": 64.0}, "size"),
    ],
    ids=str,
)
async def test_a_ring_of_the_wrong_types_is_invalid(caller: Caller, ring: Json, place: str) -> None:
    async with lending(PACKED) as lender:
        error = await caller.error("check", state=vlans(1), target=lender.target_with(**ring))
    assert is_error(error, "invalid-params", "problems")
    assert [problem["path"] for problem in error["data"]["problems"]] == [f"target.ring.{place}"]


async def test_the_layout_is_what_was_negotiated(caller: Caller) -> None:
    async with lending(PACKED) as packed, lending() as split:
        for lender, features, layout in (
            (packed, FEATURES, "split"),
            (split, PACKED, "packed"),
        ):
            target = {**lender.target, "features": features}
            error = await caller.error("check", state=vlans(1), target=target)
            assert is_error(error, "bad-lend", "reason")
            assert f'expected ring.layout "{layout}"' in error["message"]


@pytest.mark.parametrize("wrap", [0, 1])
async def test_a_ring_in_which_a_chain_is_available_is_refused(caller: Caller, wrap: int) -> None:
    position = 5 if wrap else 69
    async with lending(PACKED, start=False, start_index=position) as lender:
        wanted = wish(lender, **place(position))
        at = lender.offset(lender.ring["descriptors"]) + 16 * 5 + 14
        with lender.mapped() as memory:
            memory[at : at + 2] = b"\x80\x00" if wrap else b"\x00\x80"
        error = await caller.error("restore", lender.fds, **wanted)
        assert is_error(error, "bad-lend", "reason")
        assert "got a chain available at 5" in error["message"]
        assert is_operation(await caller.result("status", migration="vm-1"), "prepared")
        with lender.mapped() as memory:
            memory[at : at + 2] = bytes(2)
        lender.device.start()
        report = await caller.result("restore", lender.fds, **wanted)
        assert (report["outcome"], report["ring"]) == ("restored", place(position + 6))


async def test_only_the_drivers_parts_of_the_memory_are_written(caller: Caller) -> None:
    async with lending(PACKED, start=False) as lender:
        with lender.mapped() as memory:
            before = memory[:]
        error = await caller.error("restore", lender.fds, deadline_ms=20, **wish(lender))
        assert error["data"]["kind"] == "timeout"
        with lender.mapped() as memory:
            after = memory[:]
        device = lender.offset(lender.ring["device"])
        assert after[device : device + 4] == before[device : device + 4]
        end = lender.offset(lender.ring["buffers"]["iova"]) + lender.ring["buffers"]["size"]
        assert after[end:] == before[end:]
