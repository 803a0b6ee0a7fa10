"""The header in C reads replies as the daemon writes them, and never past one that is cut."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import run
from tests.kit.building import SANITIZED, compiled_c

LINE = {"index": 3, "command": "VLAN_ADD", "arguments": 'vid="42"', "ack": 1}
REPORT = {
    "migration": "vm",
    "outcome": "rejected",
    "commands": 5,
    "rejected": [LINE, LINE],
    "unanswered": [],
    "rejected_total": 2,
    "unanswered_total": 0,
    "ring": {"next_available": 5, "next_used": 65535},
    "device_must_reset": False,
}


def _error(kind: str, message: str, **data: Any) -> dict[str, Any]:
    return {"error": {"code": -32005, "message": message, "data": {"kind": kind, **data}}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("replies.c")
    return compiled_c(tmp_path_factory.mktemp("c") / "replies", source, more=SANITIZED)


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ({"result": REPORT}, '||VLAN_ADD|vid="42"|2|0|1|65535|0'),
        (
            _error("rejected", "5 µs, {]\\", report=REPORT),
            'rejected|5 ?s, {]\\|VLAN_ADD|vid="42"|2|0|1|65535|0',
        ),
        (_error("bad-lend", "it is not"), "bad-lend|it is not|||0|0|0|0|0"),
        (_error("internal", "see the journal"), "internal|see the journal|||0|0|0|0|1"),
        (
            _error("timeout", "", report={**REPORT, "ring": None, "device_must_reset": True}),
            'timeout||VLAN_ADD|vid="42"|2|0|0|0|1',
        ),
    ],
    ids=["restored", "rejected", "no report", "internal", "no ring"],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["close", "wide"])
def test_a_reply_whole_and_cut(
    reader: Path, reply: dict[str, Any], read: str, separators: tuple[str, str]
) -> None:
    text = json.dumps({"jsonrpc": "2.0", "id": 1, **reply}, separators=separators)
    done = run(reader, text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{read}\n"
