"""A daemon whose standard error is the journal, as systemd has it, and what the journal tells."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import vdpad
from tests.daemon.support import Caller, Json, software, vlans
from tests.service.fake_journal import FakeJournal
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, until
from vdpad.daemon.events.operations import Rejected
from vdpad.service.events import announcing

# After so many seconds nothing waits to be told, if the daemon runs in this loop.
ALL_TOLD = 2 * announcing._SOON


def wish(migration: str, state: Json, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


@asynccontextmanager
async def journalling(folder: Path, **settings: Any) -> AsyncIterator[tuple[Caller, FakeJournal]]:
    """Someone to ask a daemon of its own whose standard error is the journal, and that journal."""
    config = folder / "vdpad.toml"
    config.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    path, journal = folder / "vdpad.sock", FakeJournal(folder / "journal")
    program = (
        "import sys; from vdpad.service.systemd import journald; from vdpad.cli.vdpad import main; "
        "journald.JOURNAL_SOCKET = sys.argv.pop(1); sys.exit(main())"
    )
    with (folder / "stderr").open("wb") as errors, journal:
        found = os.fstat(errors.fileno())
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(journal.path)),
            *("--socket", str(path), "--config", str(config)),
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
        )
        try:
            await until(path.exists)
            with Caller(path) as caller:
                yield caller, journal
        finally:
            child.terminate()
            async with asyncio.timeout(GUARD):
                assert await child.wait() == 0
        assert (folder / "stderr").read_bytes() == b""


async def test_the_journal_tells_a_migrations_whole_story(tmp_path: Path) -> None:
    faults = '[{name = "sim0", misbehave = {faults = {"1" = "err"}}}]'
    async with journalling(tmp_path, software=faults) as (caller, journal):
        await caller.result("prepare", **wish("vm-8", vlans(1)))
        await caller.error("prepare", **wish("vm-7", vlans(1, 2), software("none")))
        await caller.result("prepare", **wish("vm-7", vlans(1, 2)))
        report = (await caller.error("commit", migration="vm-7"))["data"]["report"]
        await caller.result("cancel", migration="vm-8")
        entries = journal.entries()
    assert entries[0]["MESSAGE"] == [f"vdpad {vdpad.__version__} listens on {tmp_path}/vdpad.sock"]
    story = [each for each in entries if each.get("VDPAD_MIGRATION") == ["vm-7"]]
    assert [each["VDPAD_EVENT"] for each in story] == [
        *(["refused"], ["prepared"], ["committing"], ["rejected"]),
    ]
    uid = [str(os.getuid())]
    assert all(each["VDPAD_UID"] == uid for each in story)
    assert all(each["SYSLOG_IDENTIFIER"] == ["vdpad"] for each in entries)
    assert story[0]["VDPAD_ERROR"] == ["no-such-device"]
    end = story[-1]
    assert end["MESSAGE"] == [
        "vm-7: software sim0 refused 1 of 2 commands: VLAN_ADD vid=2",
    ]
    expected = {
        "MESSAGE_ID": Rejected.MESSAGE_ID,
        "PRIORITY": "3",
        "VDPAD_TARGET": "software",
        "VDPAD_DEVICE": "sim0",
        "VDPAD_OUTCOME": "rejected",
        "VDPAD_COMMAND": "VLAN_ADD vid=2",
        "VDPAD_COMMANDS": "2",
        "VDPAD_APPLIED": "1",
        "VDPAD_REJECTED": "1",
        "VDPAD_UNANSWERED": "0",
        "VDPAD_DOORBELLS": str(report["doorbells"]),
        "VDPAD_PREPARE_US": str(report["prepare_us"]),
        "VDPAD_COMMIT_US": str(report["commit_us"]),
        "VDPAD_DEVICE_MUST_RESET": "false",
    }
    assert {name: end[name] for name in expected} == {name: [v] for name, v in expected.items()}
    assert not any("timestamp" in name.lower() for each in entries for name in each)


async def test_a_commit_goes_on_where_the_journal_is_full_or_gone(tmp_path: Path) -> None:
    async with journalling(tmp_path) as (caller, journal):
        # Nobody reads: the socket's queue is soon full.
        for number in range(200):
            report = await caller.result("restore", **wish(f"vm-{number}", vlans(1)))
            assert report["outcome"] == "restored"
        await asyncio.sleep(ALL_TOLD)
        journal.entries()
        await caller.result("restore", **wish("vm-last", vlans(1)))
        await asyncio.sleep(ALL_TOLD)
        told = journal.entries()
        assert told[0]["VDPAD_EVENT"] == ["entries-lost"]
        assert int(told[0]["VDPAD_LOST"][0]) > 10
        assert [each["VDPAD_EVENT"][0] for each in told[1:]] == [
            *("prepared", "committing", "restored"),
        ]
        journal.path.unlink()
        await caller.result("restore", **wish("vm-gone", vlans(1)))


async def test_without_a_journal_lines_go_to_standard_error(tmp_path: Path) -> None:
    """As in a container that inherited $JOURNAL_STREAM and has no journal."""
    program = (
        "import os, sys; from vdpad.service import log; "
        "from vdpad.service.systemd import journald; "
        "journald.JOURNAL_SOCKET = '/nowhere'; found = os.fstat(2); "
        "log.configure(environ={'JOURNAL_STREAM': f'{found.st_dev}:{found.st_ino}'}); "
        "from vdpad.service.events.announcing import log_event; "
        "from vdpad.service.events.kinds import Listening; log_event(Listening('/a', '1\\n2'))"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, said = await child.communicate()
    line = said.decode()
    assert line.count("\n") == 1
    assert '"event": "listening"' in line
    assert '"version": "1\\\\n2"' in line
    assert "message" not in line


def test_lines_that_nobody_took_are_counted() -> None:
    program = (
        "from vdpad.service import log; from vdpad.service.events.announcing import log_event; "
        "from vdpad.daemon.events.daemon import Stopped; log.configure(environ={}); "
        "assert log.dropped() == 0; log_event(Stopped()); log_event(Stopped()); "
        "assert log.dropped() == 2"
    )
    with open("/dev/full", "wb") as full:
        subprocess.run([sys.executable, "-c", program], stderr=full, check=True, cwd=ROOT)
