"""Back ends on TAP interfaces: what the guest of one sends, the guest of the other receives."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.backend.process import BackEndProcess, joined, new_guest, running
from tests.backend.vmm import BUFFER, HEADER, OK, OTHER_MAC, Vmm
from tests.support.namespaces import namespace, why_no_taps
from tests.support.waiting import until
from tests.vhost_user import front_end as page
from vdpad.virtio.commands import MacAddrSet, VlanAdd

EVERYBODY = bytes.fromhex("ffffffffffff")
EXPERIMENT = bytes.fromhex("88b5")


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[BackEndProcess, ...]]:
    skip_or_fail(why_no_taps())
    async with joined(tmp_path, "--stay") as processes:
        yield processes


def send(vmm: Vmm, destination: bytes, source: bytes, said: bytes) -> None:
    frame = destination + source + EXPERIMENT + said
    vmm.guest.queues[1].send([HEADER, frame.ljust(60, b"\0")], [])


async def hears(vmm: Vmm, said: bytes) -> None:
    """Returns once its guest has received this."""
    heard: list[bytes] = []

    def has_come() -> bool:
        queue = vmm.guest.queues[0]
        for _, length, data in queue.collect():
            heard.append(data[len(HEADER) + 14 : length].rstrip(b"\0"))
            queue.send([], [BUFFER])
        return said in heard

    await until(has_come)


async def mac_of(vmm: Vmm) -> bytes:
    told = await vmm.front_end.ask(page.GET_CONFIG, page.config(0, bytes(6)))
    return told[-6:]


async def test_two_guests_talk(both: tuple[BackEndProcess, ...]) -> None:
    first, second = both
    async with first.vmm() as one, second.vmm() as other:
        for vmm in (one, other):
            await vmm.start()
            for _ in range(4):
                vmm.guest.queues[0].send([], [BUFFER])
        macs = [await mac_of(one), await mac_of(other)]
        assert macs[0] != macs[1]
        send(one, EVERYBODY, macs[0], b"who is there?")
        await hears(other, b"who is there?")
        for number in range(50):
            send(other, macs[0], macs[1], b"ask %d" % number)
            await hears(one, b"ask %d" % number)
            send(one, macs[1], macs[0], b"tell %d" % number)
            await hears(other, b"tell %d" % number)
            one.guest.queues[1].collect()
            other.guest.queues[1].collect()


async def test_a_guest_that_was_paused_hears_what_came_meanwhile(
    both: tuple[BackEndProcess, ...],
) -> None:
    first, second = both
    async with first.vmm() as one, second.vmm() as other:
        await one.start()
        await other.start()
        other.guest.queues[0].send([], [BUFFER])
        bases = await other.stop()
        send(one, EVERYBODY, OTHER_MAC, b"in the meantime")
        await other.set_up_rings(bases)
        await other.enable_all()
        await hears(other, b"in the meantime")


async def test_what_a_guest_sets_is_captured_and_given_back(
    both: tuple[BackEndProcess, ...],
) -> None:
    process, guest = both[0], new_guest()
    async with process.vmm(guest) as vmm:
        await vmm.start()
        for command in (MacAddrSet(OTHER_MAC), VlanAdd(7)):
            assert await vmm.command(command.encode()) == OK
        captured = await process.ask("capture")
        assert (captured["missing"], captured["state"]["vlans"]) == ([], [7])
        await vmm.pause()
        report = (await process.ask("status"))["report"]
        assert (report["outcome"], report["commands"]) == ("restored", 2)
    guest.close()


async def test_it_is_named_by_its_interface(tmp_path: Path) -> None:
    skip_or_fail(why_no_taps())
    with namespace() as within:
        within.must("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
        async with running(tmp_path, software="tap:tap7", within=within) as process:
            assert (await process.ask("info"))["device"] == "tap:tap7"


async def test_an_interface_that_cannot_be_had_ends_it(tmp_path: Path) -> None:
    skip_or_fail(why_no_taps())
    with namespace() as within:
        within.must("ip", "link", "add", "br7", "type", "bridge")
        process = BackEndProcess(tmp_path, software="tap:br7", within=within)
        assert process.wait() == 1
        assert "br7: expected a TAP interface to attach to" in process.log()
