"""The journal as the installed service writes it, read back by its fields with journalctl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.host import Json, migration
from tests.vm.journal import assert_tells_of_refused, entries, entries_until, events
from tests.vm.test_restore import assert_restored
from vdpad.daemon.events.operations import Rejected, Restored

from .service import Service

SETTINGS = """
[[software]]
name = "sim0"
[[software]]
name = "bad"
misbehave = { faults = { "1" = "err" } }
"""


@pytest.fixture(scope="module")
def faulty(booted: Service) -> Iterator[Service]:
    """The service with a device that refuses its second command."""
    booted.change(config=SETTINGS)
    booted.vm.output("journalctl", "--update-catalog")
    yield booted
    booted.as_installed()


def wish(device: str) -> Json:
    """Three commands for a software device."""
    return {
        "migration": migration(),
        "state": {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [5, 6, 7]},
        "target": {"kind": "software", "name": device},
    }


def test_a_restored_migration_s_whole_story(faulty: Service) -> None:
    asked = wish("sim0")
    report = faulty.daemon.result("restore", **asked)
    assert_restored(report, 3)
    found = entries_until(faulty.vm, "restored", f"VDPAD_MIGRATION={asked['migration']}")
    assert events(found) == ["prepared", "committing", "restored"]
    uid = faulty.vm.output("id", "-u", "vdpad").strip()
    for each in found:
        assert each["_SYSTEMD_UNIT"] == ["vdpad.service"]
        assert each["_UID"] == [uid]
        assert each["VDPAD_UID"] == ["0"]
        assert each["VDPAD_DEVICE"] == ["sim0"]
    end = found[-1]
    assert end["VDPAD_OUTCOME"] == ["restored"]
    assert end["VDPAD_COMMIT_US"] == [str(report["commit_us"])]
    assert "VDPAD_COMMAND" not in end


def test_a_refused_migration_and_its_command(faulty: Service) -> None:
    asked = wish("bad")
    faulty.daemon.result("prepare", **asked)
    report = faulty.daemon.refused("commit", migration=asked["migration"])["report"]
    assert report["rejected_total"] == 1
    assert_tells_of_refused(faulty.vm, asked["migration"], report, uid=0)
    assert_is_found_by_what_an_operator_knows(faulty, asked["migration"])
    assert_is_explained(faulty, asked["migration"])


def assert_is_found_by_what_an_operator_knows(service: Service, name: str) -> None:
    """By the kind of event, by the outcome, and by the device."""
    for match in (f"MESSAGE_ID={Rejected.MESSAGE_ID}", "VDPAD_OUTCOME=rejected"):
        found = entries(service.vm, "-u", "vdpad", match)
        assert {each["VDPAD_EVENT"][0] for each in found} == {"rejected"}
        assert name in {each["VDPAD_MIGRATION"][0] for each in found}
    by_device = entries(service.vm, "VDPAD_DEVICE=bad", f"MESSAGE_ID={Restored.MESSAGE_ID}")
    assert by_device == []
    failures = entries(service.vm, "-u", "vdpad", "-p", "err", f"VDPAD_MIGRATION={name}")
    assert events(failures) == ["rejected"]


def assert_is_explained(service: Service, name: str) -> None:
    """By the catalog that was installed."""
    said = service.vm.output("journalctl", "-x", "--no-pager", f"VDPAD_MIGRATION={name}")
    assert f"Subject: The device refused commands of {name}" in said
    assert "Documentation: man:vdpad(8)" in said
    assert "@" not in said
