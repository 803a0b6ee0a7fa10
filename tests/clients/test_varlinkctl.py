"""varlinkctl, of the systemd of Debian 13: what anybody has who has no client at all."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from vdpad.daemon.api.varlink import description

from .programs import EXAMPLES, SHARED, fetched, run, run_in_a_container

INTERFACE = "io.vdpad.Daemon"
STATE = json.loads((EXAMPLES / "state.json").read_text())
SOFTWARE = {"kind": "software", "name": "sim0"}


@pytest.fixture(scope="module")
def varlinkctl() -> Path:
    return fetched("varlinkctl")


def said(*argv: str | Path) -> str:
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(varlinkctl: Path, path: Path, method: str, **parameters: Any) -> Any:
    """What a call comes to; it must succeed."""
    told = said(varlinkctl, "-j", "call", path, f"{INTERFACE}.{method}", json.dumps(parameters))
    return json.loads(told)


def test_what_the_service_is(varlinkctl: Path, path: Path) -> None:
    told = json.loads(said(varlinkctl, "-j", "info", path))
    assert (told["vendor"], told["product"]) == ("vdpad", "vdpad")
    assert told["interfaces"] == [INTERFACE, "org.varlink.service"]


def test_its_interface_is_well_formed_and_told_whole(
    varlinkctl: Path, path: Path, folder: Path
) -> None:
    told = said(varlinkctl, "introspect", path, INTERFACE)
    for line in description().splitlines():
        if line.startswith(("method", "error", "type")):
            assert line.partition("(")[0].strip() in told
    (folder / "interface").write_text(description())
    said(varlinkctl, "validate-idl", folder / "interface")


def test_its_methods_are_listed(varlinkctl: Path, path: Path) -> None:
    told = said(varlinkctl, "list-methods", path, INTERFACE).split()
    assert f"{INTERFACE}.Restore" in told


def test_a_migration_from_check_to_status(varlinkctl: Path, path: Path) -> None:
    assert call(varlinkctl, path, "Check", state=STATE, target=SOFTWARE)["compatible"]
    wish = {"migration": "ctl-1", "state": STATE, "target": SOFTWARE}
    assert call(varlinkctl, path, "Prepare", **wish)["operation"]["state"] == "prepared"
    assert call(varlinkctl, path, "Commit", migration="ctl-1")["outcome"] == "restored"
    status = call(varlinkctl, path, "Status", migration="ctl-1")["operation"]
    assert (status["state"], status["report"]["outcome"]) == ("restored", "restored")


def test_an_error_is_told_by_its_name(varlinkctl: Path, path: Path) -> None:
    done = run(varlinkctl, "-j", "call", path, f"{INTERFACE}.Cancel", '{"migration": "none"}')
    assert done.returncode != 0
    assert f"{INTERFACE}.NoSuchMigration" in done.stderr
    assert "nothing was prepared" in json.loads(done.stdout)["message"]


def test_it_may_be_told_that_no_reply_is_wanted(varlinkctl: Path, path: Path) -> None:
    wish = json.dumps({"migration": "ctl-2", "state": STATE, "target": SOFTWARE})
    said(varlinkctl, "--oneway", "call", path, f"{INTERFACE}.Prepare", wish)
    # On one socket what comes first is not done first: connections do not wait for each other.
    for _ in range(100):
        done = run(varlinkctl, "call", path, f"{INTERFACE}.Status", '{"migration": "ctl-2"}')
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def test_in_a_container(varlinkctl: Path, path: Path, folder: Path) -> None:
    there = SHARED / path.name
    done = run_in_a_container(folder, varlinkctl, "-j", "call", there, f"{INTERFACE}.Info", "{}")
    assert json.loads(done.stdout)["name"] == "vdpad", done.stderr


def test_it_watches(varlinkctl: Path, path: Path) -> None:
    watch = ("-j", "--more", "call", str(path), f"{INTERFACE}.Watch", '{"states": []}')
    with subprocess.Popen([varlinkctl, *watch], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        wish = {"state": STATE, "target": SOFTWARE}
        seen = threading.Event()

        def change_until_seen() -> None:
            number = 0
            while not seen.wait(0.01) and number < 1000:
                call(varlinkctl, path, "Restore", migration=f"watched-{number}", **wish)
                number += 1

        changing = threading.Thread(target=change_until_seen)
        changing.start()
        told = [_summary(watcher.stdout.readline()) for _ in range(3)]
        seen.set()
        changing.join()
        watcher.terminate()
    assert len({each["migration"] for each in told}) == 1
    assert [each["state"] for each in told] == ["prepared", "committing", "restored"]


def _summary(line: str) -> Any:
    """What a line of RFC 7464's JSON text sequences holds."""
    return json.loads(line.lstrip("\x1e"))["operation"]
