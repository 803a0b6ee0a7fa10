"""vdpad's entries in a real journal: a systemd-journald of our own in the machine."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.waiting import wait_until

from .host import Caller, Started, migration, vhost_vdpa
from .journal import assert_tells_of_refused, entries, entries_until, events
from .machine import ROOT, Machine

JOURNALD = "/lib/systemd/systemd-journald"
SOCKET = "/run/systemd/journal/socket"
FAULTS = '[[software]]\nname = "bad"\n[software.misbehave]\nfaults = { "1" = "err", "3" = "err" }\n'


@pytest.fixture(scope="module")
def journald(vm: Machine) -> Iterator[Machine]:
    """The machine, with a journal in its memory."""
    there = shutil.which("systemd-cat") and Path(JOURNALD).exists()
    skip_or_fail(None if there else "systemd is not installed")
    pid = vm.ask("spawn", argv=[JOURNALD], stderr="/run/journald.log")
    try:
        vm.output("sh", "-c", f"for i in $(seq 200); do [ -S {SOCKET} ] && exit; sleep 0.1; done")
        yield vm
    finally:
        vm.ask("kill", pid=pid, number=signal.SIGTERM)
        vm.ask("wait", pid=pid)


@pytest.fixture(scope="module")
def daemon(journald: Machine) -> Iterator[Caller]:
    """A daemon whose standard error is that journal."""
    vm, socket, config = journald, "/run/journalling.sock", "/run/journalling.toml"
    vm.ask("write", path=config, text=FAULTS)
    # systemd sets $JOURNAL_STREAM for its services; here it is done as it does it.
    program = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
    vdpad = [sys.executable, "-m", "vdpad.cli.vdpad", "--socket", socket, "--config", config]
    argv = ["systemd-cat", "sh", "-c", program, "sh", *vdpad]
    pid = vm.ask("spawn", argv=argv, stderr="/run/journalling.log")
    entries_until(vm, "listening", "VDPAD_EVENT=listening")
    running = Started(vm, socket, pid, "/run/journalling.log")
    yield running
    running.terminate()
    assert events(entries_until(vm, "stopped", "SYSLOG_IDENTIFIER=vdpad"))[-2:] == [
        *("stopping", "stopped"),
    ]


def vlans(*vids: int | list[int]) -> dict[str, object]:
    return {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": list(vids)}


def restored_on_bad(daemon: Caller, *vids: int | list[int]) -> tuple[str, dict[str, object]]:
    """The name of a migration whose commands were refused in part, and its report."""
    name, target = migration(), {"kind": "software", "name": "bad"}
    daemon.result("prepare", migration=name, state=vlans(*vids), target=target)
    return name, daemon.refused("commit", migration=name)["report"]


def test_a_refused_migration_is_understood_by_its_fields(daemon: Caller) -> None:
    name, report = restored_on_bad(daemon, 1, 2, 3, 4)
    assert report["rejected_total"] == 2
    assert_tells_of_refused(daemon.vm, name, report, uid=0)


def test_a_kept_device_s_story_goes_on_to_its_release(daemon: Caller) -> None:
    name = migration()
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [5]}
    target = vhost_vdpa("vp0")
    daemon.result("restore", migration=name, state=state, target=target)
    daemon.result("release", device="vp0")
    found = entries_until(daemon.vm, "device-released", f"VDPAD_MIGRATION={name}")
    assert events(found) == [
        *("device-kept", "prepared", "committing", "restored", "device-released"),
    ]
    assert {each["VDPAD_DEVICE"][0] for each in found} == {"vp0"}


def test_a_refused_request_is_told_and_forges_nothing(daemon: Caller) -> None:
    name = migration()
    reply = daemon.refused(
        *("prepare",),
        migration=name,
        state=vlans(1),
        target={"kind": "software", "name": "no\nMESSAGE=forged"},
    )
    assert reply["kind"] == "no-such-device"
    (found,) = entries_until(daemon.vm, "refused", f"VDPAD_MIGRATION={name}")
    assert found["VDPAD_ERROR"] == ["no-such-device"]
    assert entries(daemon.vm, "MESSAGE=forged") == []


def test_journalctl_x_explains_it(daemon: Caller) -> None:
    vm = daemon.vm
    name, _ = restored_on_bad(daemon, 1, 2)
    entries_until(vm, "rejected", f"VDPAD_MIGRATION={name}")
    root = "/run/catalog"
    vm.output("mkdir", "-p", f"{root}/usr/lib/systemd/catalog", f"{root}/var/lib/systemd/catalog")
    vm.output("cp", str(ROOT / "systemd/vdpad.catalog"), f"{root}/usr/lib/systemd/catalog")
    vm.output("journalctl", f"--root={root}", "--update-catalog")
    # The machine's files are read-only, and journalctl looks in one place.
    here = f"mount --bind {root}/var/lib/systemd /var/lib/systemd && exec journalctl -x --no-pager"
    shown = vm.output("unshare", "-m", "sh", "-c", f"{here} VDPAD_MIGRATION={name}")
    assert f"Subject: The device refused commands of {name}" in shown
    assert "answered all of the 2 commands, and 1 of" in shown
    assert "@" not in shown


def test_journald_takes_long_entries_and_lines_of_ours(journald: Machine) -> None:
    program = (
        "import sys; from vdpad.service.systemd.journald import Journald, entry;"
        "sink = Journald(sys.argv[1]);"
        "sink.msg(entry([('MESSAGE', 'a\\nVDPAD_FORGED=1'), ('SYSLOG_IDENTIFIER', 'long'),"
        "('VDPAD_REASON', 'x' * 1000000), ('VDPAD_EXCEPTION', 'one\\ntwo')])); print(sink.dropped)"
    )
    assert journald.output(sys.executable, "-c", program, SOCKET) == "0\n"
    those = ("--all", "SYSLOG_IDENTIFIER=long")
    wait_until(lambda: entries(journald, *those))
    found = entries(journald, *those)
    assert found[0]["MESSAGE"] == ["a\nVDPAD_FORGED=1"]
    assert found[0]["VDPAD_EXCEPTION"] == ["one\ntwo"]
    assert found[0]["VDPAD_REASON"] == ["x" * 1_000_000]
    assert "VDPAD_FORGED" not in found[0]
