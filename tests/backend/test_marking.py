"""What is marked while a front end logs a device that cannot be relayed: all of it at the stop."""

from collections.abc import AsyncIterator

import pytest

from tests.backend.devices import NeverSuspended
from tests.backend.vmm import OK, BackEnd, Heard, back_end, settings, vmm
from tests.backend.written import used_ring
from tests.support.guest import Guest
from tests.support.waiting import until
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.events import LoggingBegan, LoggingEnded
from vdpad.virtio.commands import MacAddrSet, VlanAdd


@pytest.fixture
async def on(heard: Heard) -> AsyncIterator[BackEnd]:
    async with back_end(NeverSuspended(), heard, in_order=True) as on:
        yield on


async def test_everything_is_marked_at_the_stop(on: BackEnd, heard: Heard, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.loop(b"before") == b"before"
        await machine.log(log)
        assert await machine.loop(b"packet") == b"packet"
        assert pages_in(log) == set()
        await machine.stop()
        pages = machine.guest.pages
        assert pages_in(log) == pages
        logged = on.device.logged
        assert logged is not None
        assert logged.way == "everything"
        assert logged.pages >= len(pages)
        await machine.log_no_more()
        assert on.device.logged is None
    assert heard.events == [
        LoggingBegan("nic0", "everything"),
        LoggingEnded("nic0", "everything", logged.pages),
    ]


async def test_what_this_process_writes_is_marked_at_once(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        await machine.log(log)
        control = machine.guest.queues[-1]
        request = control.driver.submit([VlanAdd(6).encode()], [1], control.way)
        control.publish()
        assert await machine.answers([request]) == [OK]
        # Where the ack stands, and the used ring.
        used = used_ring(machine.guest, control.index)
        marked = pages_in(log)
        assert used <= marked
        assert 1 <= len(marked - used) <= 1
        assert marked <= machine.guest.pages


async def test_a_front_end_that_goes(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        pages = machine.guest.pages
        machine.front_end.close()
        await until(lambda: on.device.logged is None)
        assert pages_in(log) == pages
    assert not on.device.is_running


async def test_a_guest_that_is_paused_during_a_migration(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        await machine.pause()
        assert pages_in(log) == machine.guest.pages
        assert await machine.loop(b"again") == b"again"
        with log_file(1 << 31 >> 15) as other:
            await machine.log(other)
            await machine.stop()
            assert pages_in(other) == machine.guest.pages
            logged = on.device.logged
            assert logged is not None
            assert logged.pages >= 2 * len(machine.guest.pages)


async def test_nothing_is_marked_once_it_has_ended(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        await machine.log_no_more()
        assert await machine.command(MacAddrSet(bytes(5) + b"\2").encode()) == OK
        await machine.stop()
        assert pages_in(log) == set()


async def test_a_device_that_does_not_stop_well_has_its_memory_marked(log: int) -> None:
    class Broken(NeverSuspended):
        broken = False

        def reset(self) -> None:
            super().reset()
            if self.broken:
                raise OSError(5, "it does not")

    device = Broken()
    async with back_end(device, in_order=True) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        device.broken = True
        with pytest.raises(ConnectionError):
            await machine.stop()
        device.broken = False
        assert pages_in(log) == machine.guest.pages


@pytest.mark.parametrize("step", range(5))
async def test_a_front_end_that_breaks_off_and_the_next_goes_on(
    on: BackEnd, log: int, step: int
) -> None:
    """At each message of a migration: its guest loses nothing, and the next is logged as well."""
    guest = Guest(9, event_idx=True)
    async with vmm(on, guest=guest) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        assert await machine.loop(b"packet") == b"packet"
        steps = (
            lambda: machine.log(log),
            lambda: machine.log(log),
            lambda: machine.front_end.base(0),
            machine.stop,
        )
        for each in steps[:step]:
            await each()
    assert on.device.logged is None
    assert not on.device.is_running
    async with vmm(on, guest=guest) as machine:
        await machine.start([1, 1, 0, 0, 0, 0, 0, 0, 1])
        assert settings(on)["vlans"] == [5]
        assert await machine.loop(b"again") == b"again"
        await machine.log(log)
        await machine.stop()
        assert pages_in(log) == guest.pages
    guest.close()
