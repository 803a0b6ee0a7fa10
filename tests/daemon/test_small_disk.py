"""A directory of records that is full or read-only: the daemon says so, and serves on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.daemon.support import Caller, Json, is_report, software, vlans
from tests.support.daemon import Daemon, running
from tests.support.mounts import SmallDisk, small_disk
from vdpad.wire.keys import write_new_key

KIB = 64


@asynccontextmanager
async def asked(folder: Path, disk: SmallDisk) -> AsyncIterator[tuple[Daemon, Caller]]:
    """A daemon with its records there, and other hosts' requests; and who asks it."""
    key = folder / "keys"
    if not key.exists():
        write_new_key(key)
    (folder / "vdpad.log").unlink(missing_ok=True)
    async with running(
        folder,
        within=disk.pid,
        records={"directory": disk.folder},
        udp={"listen": "127.0.0.1:0", "key_file": key},
    ) as daemon:
        with Caller(daemon.socket) as caller:
            yield daemon, caller


def wish(migration: str) -> Json:
    return {"migration": migration, "state": vlans(1, 2), "target": software()}


def lost(daemon: Daemon) -> list[str]:
    """Of which records it has told that they are lost."""
    return [event["record"] for event in daemon.events("record-lost")]


async def test_what_was_kept_is_there_when_there_is_no_more_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "records", KIB) as disk:
        async with asked(tmp_path, disk) as (daemon, caller):
            kept = await caller.result("restore", **wish("kept"))
            assert is_report(kept, "restored")
            await caller.result("prepare", **wish("waits"))
            disk.fill()
            assert is_report(await caller.result("restore", **wish("lost")), "restored")
            assert is_report(await caller.result("commit", migration="waits"), "restored")
            # The file of other hosts' requests has no room from the start.
            assert set(lost(daemon)) == {"requests-from-other-hosts", "lost"}
        async with asked(tmp_path, disk) as (_, caller):
            assert await caller.result("restore", **wish("kept")) == kept
            states = {each["migration"]: each["state"] for each in await caller.listed()}
            assert states == {"kept": "restored", "waits": "restored"}
            assert is_report(await caller.result("restore", **wish("more")), "restored")
        disk.make_room()
        async with asked(tmp_path, disk) as (_, caller):
            await caller.result("restore", **wish("again"))
        async with asked(tmp_path, disk) as (_, caller):
            there = {each["migration"] for each in await caller.listed()}
            assert there == {"kept", "waits", "again"}


async def test_what_was_kept_is_there_when_nothing_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "records", KIB) as disk:
        async with asked(tmp_path, disk) as (_, caller):
            kept = await caller.result("restore", **wish("kept"))
        disk.remount("ro")
        for _ in range(2):
            async with asked(tmp_path, disk) as (daemon, caller):
                assert await caller.result("restore", **wish("kept")) == kept
                assert is_report(await caller.result("restore", **wish("lost")), "restored")
                assert "lost" in lost(daemon)
                reasons = {each["reason"] for each in daemon.events("record-lost")}
                assert reasons == {"Read-only file system"}


@pytest.mark.parametrize("name", ["0" * 32 + ".operation", "requests-from-other-hosts"])
async def test_files_of_another_version_are_told_and_in_nobody_s_way(
    tmp_path: Path, name: str
) -> None:
    with small_disk(tmp_path / "records", 4096) as disk:
        disk.path(name).write_bytes(b"of another version" * 100)
        async with asked(tmp_path, disk) as (daemon, caller):
            assert is_report(await caller.result("restore", **wish("vm-1")), "restored")
            told = lost(daemon)
        # Memory of another size begins anew, which is said where it begins.
        assert told == ([name] if name.endswith(".operation") else [])
        async with asked(tmp_path, disk) as (daemon, caller):
            assert [each["migration"] for each in await caller.listed()] == ["vm-1"]
            assert lost(daemon) == []
