"""Reading the machine's journal back, field by field, and what it must tell of a restore."""

from __future__ import annotations

import json
from typing import Any

from tests.support.waiting import wait_until

from .machine import Machine

Json = dict[str, Any]
Entry = dict[str, list[str]]


def entries(vm: Machine, *arguments: str) -> list[Entry]:
    """What journalctl finds, oldest first: each field's values."""
    found = vm.output("journalctl", "-o", "json", "--no-pager", "--quiet", *arguments)
    return [
        {name: value if isinstance(value, list) else [value] for name, value in entry.items()}
        for entry in map(json.loads, found.splitlines())
    ]


def entries_until(vm: Machine, event: str, *arguments: str) -> list[Entry]:
    """The same, once an entry of this event is among them: journald writes when it comes to it."""
    found: list[Entry] = []

    def written() -> bool:
        found[:] = entries(vm, *arguments)
        return any(entry.get("VDPAD_EVENT") == [event] for entry in found)

    wait_until(written, every=0.1, said=lambda: str(found))
    return found


def latest(vm: Machine, event: str, *arguments: str) -> Entry:
    """The last entry of this event, once there is one."""
    found = entries_until(vm, event, *arguments)
    return [each for each in found if each.get("VDPAD_EVENT") == [event]][-1]


def events(found: list[Entry]) -> list[str]:
    """Their kinds, in order."""
    return [each["VDPAD_EVENT"][0] for each in found]


def assert_tells_of_refused(vm: Machine, migration: str, report: Json, uid: int) -> None:
    """Judges a migration's story by the journal alone, against the report of its commit.

    Args:
        vm: the machine.
        migration: prepared and committed once, on a software device that refused commands.
        report: of that commit.
        uid: of whoever asked.
    """
    found = entries_until(vm, "rejected", f"VDPAD_MIGRATION={migration}")
    assert events(found) == ["prepared", "committing", "rejected"]
    for each in found:
        assert each["SYSLOG_IDENTIFIER"] == ["vdpad"]
        assert each["VDPAD_UID"] == [str(uid)]
        assert each["VDPAD_TARGET"] == ["software"]
        assert each["_TRANSPORT"] == ["journal"]
        assert len(each["MESSAGE_ID"][0]) == 32
    end = found[-1]
    assert end["PRIORITY"] == ["3"]
    assert end["VDPAD_OUTCOME"] == ["rejected"]
    expected = {f"{line['command']} {line['arguments']}" for line in report["rejected"]}
    # journald keeps the values of a field in an order of its own.
    assert set(end["VDPAD_COMMAND"]) == expected
    for key in ("commands", "applied", "doorbells", "prepare_us", "commit_us"):
        assert end[f"VDPAD_{key.upper()}"] == [str(report[key])]
    # By one command of it, too.
    command = min(expected)
    assert end in entries(vm, f"VDPAD_COMMAND={command}", f"VDPAD_MIGRATION={migration}")
