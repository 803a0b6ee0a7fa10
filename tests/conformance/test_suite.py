"""The run as a whole: what is put back, and what becomes of a device that comes up no more."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from vdpad.conformance.bench import Bench
from vdpad.conformance.case import Case, Level, Verdict
from vdpad.conformance.device_under_test import DeviceUp
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.conformance.suite import Run, SuiteStage, run
from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.vhost_vdpa.errors import DeviceRefused
from vdpad.virtio.commands import MacAddrSet
from vdpad.virtio.features import Feature

OTHER = bytes.fromhex("0200000000fe")


def case(check: object, level: Level = Level.MUST, *needs: Feature) -> Case:
    """A case of these tests' own."""
    return Case("x", "it holds", "2.7", level, check, frozenset(needs))  # type: ignore[arg-type]


async def ran(device: SoftwareUnderTest, *cases: Case) -> Run:
    """What comes of it."""
    return await run(device, cases, rounds=1, stage=SuiteStage())


class KeepsItsAddress(SoftwareUnderTest):
    """As mlx5_vdpa and vdpa_sim do."""

    mac = SoftwareConfig().net.mac

    @asynccontextmanager
    async def up(self) -> AsyncIterator[DeviceUp]:
        self._config = replace(self._config, net=replace(self._config.net, mac=self.mac))
        async with super().up() as up:
            yield up
            self.mac = (await up.config_now()).mac


async def test_an_address_that_outlives_a_reset_is_put_back() -> None:
    device = KeepsItsAddress("sim0", SoftwareConfig())
    before, seen = device.mac, []

    async def check(bench: Bench) -> Sequence[str]:
        seen.append(bench.up.config.mac)
        assert await bench.ack(MacAddrSet(OTHER)) == 0
        return ()

    await ran(device, case(check), case(check))
    assert seen == [before, before]
    assert device.mac == before


@pytest.mark.parametrize(
    ("level", "verdict"), [(Level.MUST, Verdict.FAIL), (Level.SHOULD, Verdict.NOTE)]
)
async def test_what_does_not_hold_is_told_by_its_level(level: Level, verdict: Verdict) -> None:
    async def check(bench: Bench) -> Sequence[str]:
        return ["it does not"]

    done = await ran(SoftwareUnderTest("sim0", SoftwareConfig()), case(check, level))
    assert [(each.verdict, each.seen) for each in done.cases] == [(verdict, ("it does not",))]


async def test_a_feature_that_is_not_there_makes_it_not_applicable() -> None:
    async def check(bench: Bench) -> Sequence[str]:
        raise AssertionError

    config = SoftwareConfig(features=frozenset({Feature.CTRL_VQ}))
    device = SoftwareUnderTest("sim0", config)
    done = await ran(device, case(check, Level.MUST, Feature.CTRL_VLAN))
    assert done.cases[0].seen == ("without CTRL_VLAN",)


class ComesUpFourTimes(SoftwareUnderTest):
    """Twice for the survey, twice for cases."""

    left = 4

    @asynccontextmanager
    async def up(self) -> AsyncIterator[DeviceUp]:
        if not self.left:
            raise DeviceRefused("expected status 0xf, got 0x80")
        self.left -= 1
        async with super().up() as up:
            yield up


async def test_a_device_that_comes_up_no_more_fails_what_follows() -> None:
    async def check(bench: Bench) -> Sequence[str]:
        return ()

    done = await ran(ComesUpFourTimes("sim0", SoftwareConfig()), *[case(check)] * 4)
    assert [each.verdict for each in done.cases] == [Verdict.PASS] * 2 + [Verdict.FAIL] * 2
    assert done.cases[-1].seen == ("expected status 0xf, got 0x80",)
    assert done.times.rounds == 0


async def test_a_device_that_never_comes_up_is_no_result() -> None:
    device = ComesUpFourTimes("sim0", SoftwareConfig())
    device.left = 0
    with pytest.raises(DeviceRefused):
        await ran(device)


async def test_the_stage_is_told() -> None:
    stages = []
    stage = SuiteStage()

    async def check(bench: Bench) -> Sequence[str]:
        stages.append(stage.now)
        return ()

    device = SoftwareUnderTest("sim0", SoftwareConfig())
    await run(device, [case(check)], rounds=1, stage=stage)
    assert stages == ["case x"]
    assert stage.now == "timing, 1 rounds of 25 commands"
