"""A state directory that is full or read-only: the back end says so, and its guest goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.backend.process import BackEndProcess, new_guest, running
from tests.backend.vmm import OK
from tests.support.guest import Guest
from tests.support.mounts import SmallDisk, small_disk
from vdpad.virtio.commands import VlanAdd

# Room for two files: the next is written beside the one that it takes the place of.
KIB = 256


@asynccontextmanager
async def serving(folder: Path, disk: SmallDisk) -> AsyncIterator[BackEndProcess]:
    """A back end whose state directory is there; it is killed at the end."""
    async with running(folder, "--stay", disk=disk) as process:
        yield process
        process.kill()


async def sets(
    process: BackEndProcess, vlan: int, guest: Guest | None = None, before: int = 0
) -> list[int]:
    """A guest comes, sets a VLAN, and goes with its VMM; all VLANs that it has then.

    Args:
        process: where it comes.
        vlan: that it sets.
        guest: one that was here; another one without.
        before: how many commands it has sent.
    """
    async with process.vmm(guest) as vmm:
        await vmm.start([0] * 8 + [before])
        assert await vmm.command(VlanAdd(vlan).encode()) == OK
        captured = await process.ask("capture")
        return sorted(captured["state"]["vlans"])


async def test_without_room_it_is_said_and_nothing_comes_back(tmp_path: Path) -> None:
    guest = new_guest()
    with small_disk(tmp_path / "state", KIB) as disk:
        disk.fill()
        async with serving(tmp_path, disk) as process, process.vmm(guest) as vmm:
            await vmm.start()
            assert await vmm.command(VlanAdd(7).encode()) == OK
            (event,) = process.events("settings-not-kept")
            assert event["reason"] == "No space left on device"
            process.kill()
        disk.make_room()
        async with serving(tmp_path, disk) as process:
            assert not process.events("settings-recalled")
            assert await sets(process, 8) == [8]
            assert not process.events("settings-not-kept")
    guest.close()


async def test_what_was_kept_outlives_a_disk_that_fills(tmp_path: Path) -> None:
    guest = new_guest()
    with small_disk(tmp_path / "state", KIB) as disk:
        async with serving(tmp_path, disk) as process, process.vmm(guest) as vmm:
            await vmm.start()
            assert await vmm.command(VlanAdd(7).encode()) == OK
            disk.fill()
            assert await vmm.command(VlanAdd(9).encode()) == OK
            assert not process.events("settings-not-kept")
            process.kill()
        async with serving(tmp_path, disk) as process:
            assert len(process.events("settings-recalled")) == 1
            assert await sets(process, 11, guest, 2) == [7, 9, 11]
    guest.close()


async def test_what_cannot_be_removed_is_told_to_be_old(tmp_path: Path) -> None:
    guest = new_guest()
    with small_disk(tmp_path / "state", KIB) as disk:
        async with serving(tmp_path, disk) as process:
            assert await sets(process, 7, guest) == [7]
            process.kill()
        disk.remount("ro")
        async with serving(tmp_path, disk) as process:
            assert await sets(process, 9, guest, 1) == [7, 9]
            event, *_ = process.events("settings-not-kept")
            assert event["reason"].startswith("Read-only file system; what ")
            assert "is older and cannot be removed" in event["reason"]
    guest.close()
