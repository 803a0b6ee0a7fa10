"""SIGHUP: what is taken while running, and what is told of the rest."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.daemon.support import Caller, is_error, until_state
from tests.support.daemon import Daemon, running
from tests.support.waiting import until
from vdpad.daemon.configuration import load_settings
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.process import run

ENDS = ("reloaded", "not-reloaded")


async def reloaded(daemon: Daemon, config: Path, text: str) -> dict[str, Any]:
    """Writes a configuration, sends SIGHUP, and gives the event that comes of it."""
    before = len(daemon.events(*ENDS))
    await asyncio.to_thread(config.write_text, text)
    daemon.process.send_signal(signal.SIGHUP)
    await until(lambda: len(daemon.events(*ENDS)) > before)
    return daemon.events(*ENDS)[-1]


async def test_who_may_speak_and_limits_are_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with Caller(daemon.socket) as caller:
            await caller.result("status")
            event = await reloaded(
                daemon,
                tmp_path / "vdpad.toml",
                f"[access.status]\nusers = [{os.getuid() + 1}]\n[limits]\noperations_at_once = 3\n",
            )
            assert event["event"] == "reloaded"
            assert event["taken"] == ["access", "limits"]
            assert "needs_restart" not in event
            assert is_error(await caller.error("status"), "not-allowed")
            limits = (await caller.result("info"))["limits"]
            assert limits["operations_at_once"] == 3
            await reloaded(daemon, tmp_path / "vdpad.toml", "")
            await caller.result("status")


async def test_what_needs_a_restart_is_told_and_not_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        text = "[[software]]\nname = 'novel'\n[replay]\npoll_us = 3\n"
        event = await reloaded(daemon, tmp_path / "vdpad.toml", text)
        assert event["taken"] == ["replay"]
        assert event["needs_restart"] == ["software"]
        with Caller(daemon.socket) as caller:
            state = {"version": 1, "features": []}
            error = await caller.error(
                "check", state=state, target={"kind": "software", "name": "novel"}
            )
            assert is_error(error, "no-such-device")


async def test_a_configuration_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        event = await reloaded(daemon, tmp_path / "vdpad.toml", "allowed_uids = []\nnovel = 1\n")
        assert event["event"] == "not-reloaded"
        assert "novel" in event["reason"]
        with Caller(daemon.socket) as caller:
            await caller.result("status")


async def test_a_commit_that_runs_keeps_its_settings(tmp_path: Path) -> None:
    slow = {"name": "sim0", "misbehave": {"seconds_a_command": 0.02}}
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [[1, 50]]}
    target = {"kind": "software", "name": "sim0"}
    async with running(tmp_path, software=[slow]) as daemon:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            restore = asyncio.ensure_future(
                caller.result("restore", migration="vm-1", state=state, target=target)
            )
            await until_state(other, "vm-1", "committing")
            event = await reloaded(daemon, tmp_path / "vdpad.toml", "[replay]\ndeadline_ms = 1\n")
            assert event["taken"] == ["replay"]
            assert not restore.done()
            assert (await restore)["outcome"] == "restored"


@pytest.mark.parametrize("turns", range(10))
async def test_one_that_comes_while_it_starts_is_taken_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Its socket is there before it has started, and its configuration was read before that.

    The loop hears of a signal a turn after it came, and carries out what it means a turn later.
    """
    file = tmp_path / "vdpad.toml"
    file.write_text(f"socket = '{tmp_path / 'vdpad.sock'}'\n")

    async def adopt(*_given: object) -> list[object]:
        file.write_text(file.read_text() + "[replay]\npoll_us = 3\n")
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(turns):
            await asyncio.sleep(0)
        return []

    monkeypatch.setattr(DeviceKeeper, "adopt", adopt)
    with structlog.testing.capture_logs() as said:
        serving = asyncio.create_task(run(lambda: load_settings(file)))
        await until(lambda: [each for each in said if each["event"] == "reloaded"])
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    (ours,) = (each for each in said if each["event"] == "reloaded")
    assert ours["taken"] == ("replay",)
