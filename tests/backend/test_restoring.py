"""What a device is given at a start that goes on."""

import pytest

from tests.backend.vmm import (
    OK,
    PLAIN,
    Heard,
    back_end,
    breaks_with_a_command,
    settings,
    vmm,
)
from tests.support.guest import Guest
from tests.vhost_user import front_end as page
from vdpad.backend import restoring
from vdpad.backend.events import StateLoaded
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.commands import ACK_ERR, CoalRxSet, CoalVqSet, RxPromisc, VlanAdd
from vdpad.virtio.features import Feature, FeatureSet

COALESCES: FeatureSet = PLAIN | {Feature.NOTF_COAL, Feature.VQ_NOTF_COAL}
COMMANDS = (
    VlanAdd(7),
    CoalRxSet(32, 50),
    CoalVqSet(0, 16, 25),
    CoalVqSet(3, 8, 9),
    RxPromisc(on=False),
)


class Conforming(LoopDevice):
    """Refuses a queue's coalescing before the queue is enabled, as virtio 1.4 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[bytes] = []
        self.refuses: set[bytes] = set()

    def negotiate(self, features: FeatureSet) -> None:
        super().negotiate(features)
        serve = self.net.command
        self.commands = []

        def command(readable: bytes) -> int:
            self.commands.append(readable)
            if readable in self.refuses:
                return ACK_ERR
            if readable[:2] == bytes(CoalVqSet.CODE):
                queue = int.from_bytes(readable[2:4], "little")
                if not self._up.queues[queue].enabled:
                    return ACK_ERR
            return serve(readable)

        self.net.command = command  # type: ignore[method-assign]


async def test_the_coalescing_of_queues_goes_once_they_are_enabled() -> None:
    device = Conforming()
    async with back_end(device) as on, vmm(on, features=COALESCES) as machine:
        await machine.start()
        for command in COMMANDS:
            assert await machine.command(command.encode()) == OK
        await machine.pause()
        assert [each[:2] for each in device.commands[-2:]] == [bytes(CoalVqSet.CODE)] * 2
        shown = device.net.settings()["coalescing"]
        assert shown["queues"] == {
            "0": {"max_packets": 16, "max_usecs": 25},
            "3": {"max_packets": 8, "max_usecs": 9},
        }
        report = on.device.report
        assert report is not None
        assert (report.commands, report.applied, report.doorbells) == (5, 5, 2)
        # The guest's commands go on behind them.
        assert await machine.command(VlanAdd(8).encode()) == OK
        assert settings(on)["vlans"] == [7, 8]
        assert await machine.loop(b"packet") == b"packet"


async def test_a_rehearsal_enables_them_too_and_names_what_is_refused() -> None:
    guest, heard, device = Guest(9), Heard(), Conforming()
    async with back_end() as source, back_end(device, heard) as destination:
        async with vmm(source, guest=guest, features=COALESCES) as machine:
            await machine.start()
            for command in COMMANDS:
                assert await machine.command(command.encode()) == OK
            bases = await machine.stop()
            data = await machine.save()
        async with vmm(destination, guest=guest, features=COALESCES) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            (loaded,) = heard.events
            assert isinstance(loaded, StateLoaded)
            assert loaded.commands == 5
            device.refuses = {COMMANDS[3].encode()}
            assert await machine.load(data) != 0
            assert "NOTF_COAL_VQ_SET" in destination.refusals[0]
            report = destination.device.report
            assert report is not None
            assert [each.index for each in report.rejected] == [4]
            assert (report.commands, report.applied) == (5, 4)
            device.refuses = set()
            assert await machine.load(data) == 0
            await machine.start(bases)
            assert settings(destination) == settings(source)
            await machine.front_end.done(page.SET_STATUS, page.u64(0))
    guest.close()


async def test_a_device_that_breaks_meanwhile_is_waited_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restoring, "_DEADLINE", 3600.0)
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        bases = await machine.stop()
        with monkeypatch.context() as patch:
            breaks_with_a_command(patch)
            await machine.set_up_rings(bases)
            last = machine.control.index
            await machine.front_end.enable(*range(last))
            assert await machine.front_end.acked(page.SET_VRING_ENABLE, page.state(last, 1)) != 0
        assert "the device itself says that it needs a reset" in on.refusals[0]
        assert not on.device.is_running
