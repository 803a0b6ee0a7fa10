"""What `status` lists: which, in what order, how many, and how many there are."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.support import Caller, Json, faulty, is_error, serving, software, vlans

NAMES = [f"vm-{number}" for number in range(12)]
NEWEST_FIRST = NAMES[::-1]
FAILED = ["vm-10", "vm-7", "vm-4", "vm-1"]
RESTORED = ["vm-11", "vm-8", "vm-5", "vm-2"]
PREPARED = ["vm-9", "vm-6", "vm-3", "vm-0"]


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """Of a daemon that remembers twelve operations: prepared, failed, restored, and so on."""
    devices = [{"name": "sim0"}, faulty("err", 0, name="bad")]
    async with serving(tmp_path, software=devices) as path:
        with Caller(path) as each:
            for number, name in enumerate(NAMES):
                wish = {"migration": name, "state": vlans(1)}
                if number % 3 == 0:
                    await each.result("prepare", **wish, target=software())
                elif number % 3 == 1:
                    await each.error("restore", **wish, target=software("bad"))
                else:
                    await each.result("restore", **wish, target=software())
            yield each


async def told(caller: Caller, **which: Any) -> tuple[list[str], int]:
    """The migrations of those listed, and how many match."""
    result = await caller.result("status", **which)
    return [each["migration"] for each in result["operations"]], result["total"]


@pytest.mark.parametrize(
    ("which", "listed", "total"),
    [
        ({}, NEWEST_FIRST, 12),
        ({"limit": 3}, NEWEST_FIRST[:3], 12),
        ({"limit": 1000}, NEWEST_FIRST, 12),
        ({"after": "vm-9"}, NEWEST_FIRST[3:], 12),
        ({"after": "vm-9", "limit": 2}, ["vm-8", "vm-7"], 12),
        ({"after": "vm-0"}, [], 12),
        ({"states": ["failed"]}, FAILED, 4),
        ({"states": ["restored"], "limit": 1}, RESTORED[:1], 4),
        (
            {"states": ["failed", "restored"], "after": "vm-8"},
            ["vm-7", "vm-5", "vm-4", "vm-2", "vm-1"],
            8,
        ),
        # It need not be one of those that match.
        ({"states": ["prepared"], "after": "vm-7"}, PREPARED[1:], 4),
        ({"states": ["cancelled"]}, [], 0),
        ({"states": []}, [], 0),
    ],
)
async def test_those_are_listed_that_are_asked_for(
    caller: Caller, which: Json, listed: list[str], total: int
) -> None:
    assert await told(caller, **which) == (listed, total)


async def test_page_by_page_each_is_listed_once(caller: Caller) -> None:
    listed: list[str] = []
    after: Json = {}
    while page := (await told(caller, limit=5, **after))[0]:
        listed += page
        after = {"after": page[-1]}
    assert listed == NEWEST_FIRST


async def test_a_summary_has_its_outcome_and_times(caller: Caller) -> None:
    by_name = {each["migration"]: each for each in await caller.listed()}
    assert [by_name[name]["outcome"] for name in ("vm-0", "vm-1", "vm-2")] == [
        None,
        "rejected",
        "restored",
    ]
    began = [by_name[name]["began"] for name in NAMES]
    assert began == sorted(began)
    for each in by_name.values():
        assert (each["ended"] is None) is (each["state"] == "prepared")
        assert each["ended"] is None or each["began"] <= each["ended"]
        assert "report" not in each


@pytest.mark.parametrize(
    ("which", "path"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "3"}, "limit"),
        ({"limit": None}, "limit"),
        ({"after": ""}, "after"),
        ({"states": "failed"}, "states"),
        ({"states": ["broken"]}, "states.0"),
        ({"migration": "vm-1", "limit": 3}, "migration"),
        ({"migration": "vm-1", "states": ["failed"]}, "migration"),
    ],
)
async def test_what_makes_no_sense_is_refused(caller: Caller, which: Json, path: str) -> None:
    error = await caller.error("status", **which)
    assert is_error(error, "invalid-params", "problems")
    assert error["data"]["problems"][0]["path"] == path


async def test_behind_one_that_is_not_known_there_is_nothing_to_list(caller: Caller) -> None:
    error = await caller.error("status", after="none")
    assert is_error(error, "no-such-migration")
    assert error["message"].startswith("after: ")
