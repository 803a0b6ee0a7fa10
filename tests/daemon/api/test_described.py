"""What a daemon answers is what docs/openrpc.json says that it answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import held
from tests.daemon.support import (
    STATE,
    Caller,
    Json,
    faulty,
    serving,
    slow,
    software,
    vlans,
)
from tests.support.json_schema import faults

DOCUMENT = json.loads((Path(__file__).parents[3] / "docs" / "openrpc.json").read_text())
RESULTS = {each["name"]: each["result"]["schema"] for each in DOCUMENT["methods"]}
TAKEN = {
    each["name"]: {given["name"]: given["schema"] for given in each["params"]}
    for each in DOCUMENT["methods"]
}
ERRORS = DOCUMENT["components"]["errors"]


async def described(caller: Caller, method: str, /, **params: Any) -> Json:
    """The reply to a request, once the document has both."""
    reply = await caller.call(method, **params)
    if "error" in reply:
        error = reply["error"]
        said = ERRORS[error["data"]["kind"]]
        assert error["code"] == said["code"]
        assert faults(error["data"], said["data"], DOCUMENT) == []
        return reply
    assert faults(reply["result"], RESULTS[method], DOCUMENT) == []
    for name, value in params.items():
        assert faults(value, TAKEN[method][name], DOCUMENT) == []
    return reply


def wish(migration: str, state: Json, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


async def test_results_are_as_described(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        with Caller(path) as caller:
            asked: list[tuple[str, Json]] = [
                ("info", {}),
                ("check", {"state": STATE, "target": software()}),
                ("check", {"state": {"version": 1, "features": ["MQ"]}, "target": software()}),
                ("prepare", wish("vm-1", STATE)),
                ("status", {"migration": "vm-1"}),
                ("status", {}),
                ("cancel", {"migration": "vm-1"}),
                ("prepare", wish("vm-2", STATE)),
                ("commit", {"migration": "vm-2"}),
                ("restore", wish("vm-3", vlans(1))),
                ("status", {"migration": "vm-3"}),
                ("status", {"states": ["restored"]}),
            ]
            for method, params in asked:
                reply = await described(caller, method, **params)
                assert "result" in reply, reply


async def test_devices_are_as_described(tmp_path: Path) -> None:
    """On a host without vdpa, that there is none."""
    async with serving(tmp_path) as path:
        with Caller(path) as caller:
            reply = await described(caller, "devices")
            assert "result" in reply or reply["error"]["data"]["kind"] == "no-such-device"


async def test_a_lent_target_is_as_described(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, held(path):
        with Caller(path) as caller:
            reply = await described(caller, "status")
            assert reply["result"]["operations"][0]["target"]["kind"] == "lent"


@pytest.mark.parametrize(
    ("settings", "method", "params", "kind"),
    [
        ({}, "nothing", {}, "method-not-found"),
        ({}, "prepare", {"migration": "vm-1"}, "invalid-params"),
        ({}, "prepare", wish("vm-1", {**vlans(1), "features": ["MQ"]}), "invalid-params"),
        ({}, "commit", {"migration": "vm-1"}, "no-such-migration"),
        ({}, "prepare", wish("vm-1", vlans(1), software("none")), "no-such-device"),
        ({"software": [faulty("err", 0)]}, "restore", wish("vm-1", vlans(1)), "rejected"),
        (
            {"software": [faulty("id-out-of-range", 0)]},
            "restore",
            wish("vm-1", vlans(1)),
            "device-broken",
        ),
        (
            {"software": [slow(5)]},
            "restore",
            {**wish("vm-1", vlans(1)), "deadline_ms": 1},
            "timeout",
        ),
        ({"access": {"info": {"users": [54321]}}}, "info", {}, "not-allowed"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_errors_are_as_described(
    tmp_path: Path, settings: Json, method: str, params: Json, kind: str
) -> None:
    async with serving(tmp_path, **settings) as path:
        with Caller(path) as caller:
            reply = await described(caller, method, **params)
            assert reply["error"]["data"]["kind"] == kind


async def test_errors_about_another_operation_are_as_described(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"operations_at_once": 1}) as path:
        with Caller(path) as caller:
            await described(caller, "prepare", **wish("vm-1", vlans(1)))
            conflict = await described(caller, "prepare", **wish("vm-1", vlans(2)))
            assert conflict["error"]["data"]["kind"] == "conflict"
            overloaded = await described(caller, "prepare", **wish("vm-2", vlans(2)))
            assert overloaded["error"]["data"]["migration"] == "vm-1"


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"a": 1}, {"type": "object", "additionalProperties": False}),
        ({"a": 1}, {"type": "object", "patternProperties": {"a": {"type": "string"}}}),
        ({}, {"type": "object", "required": ["a"]}),
        (True, {"type": "integer"}),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (1, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}),
        ([1], {"items": {"maximum": 0}}),
        ("ab", {"pattern": "^a$"}),
    ],
)
def test_the_judge_finds_what_does_not_fit(value: object, schema: Json) -> None:
    assert faults(value, schema, {})
