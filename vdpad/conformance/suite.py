"""The run: a survey of the device, the cases one by one, and the times.

    survey → cases → times → the device as it was

The device is reset before each step and before each case; where it comes up no more, the cases that
follow fail. Some devices keep an address that was set over a reset (mlx5_vdpa, vdpa_sim): what they
had before all is put back before each case, and at the end.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from vdpad.conformance.answers import Survey, surveyed
from vdpad.conformance.bench import Bench, NotApplicable, RingBroken, on_bench
from vdpad.conformance.case import Case, CaseOutcome, Level, Verdict
from vdpad.conformance.commands import candidates
from vdpad.conformance.device_under_test import DeviceUnderTest, Origin, StillInFlight
from vdpad.conformance.timing import Times, timed
from vdpad.queues.vhost_vdpa.errors import DeviceRefused
from vdpad.virtio.commands import Command, MacAddrSet
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.rings import BadGeometry

MAX_SECONDS = 5.0
"""How long a device may take for what is sent at once."""


class SuiteStage:
    """How far a run is, for whoever waits for it."""

    now = "coming up"


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run came to."""

    origin: Origin
    began: datetime
    seconds: float
    offered: FeatureSet
    features: FeatureSet
    ring_size: int
    survey: Survey
    cases: tuple[CaseOutcome, ...]
    times: Times


async def run(
    device: DeviceUnderTest,
    cases: Iterable[Case],
    *,
    rounds: int,
    stage: SuiteStage,
    max_seconds: float = MAX_SECONDS,
) -> Run:
    """Tests a device. On cancellation it is given back.

    Args:
        device: nobody else's.
        cases: in the order in which they are to run.
        rounds: how often each command is timed, at least once.
        stage: is told how far it is.
        max_seconds: how long the device may take for what is sent at once.

    Raises:
        VdpadError: the device does not come up.
    """
    began, started = datetime.now(UTC), time.monotonic()
    async with on_bench(device, max_seconds) as bench:
        await bench.reset()
        up = bench.up
        commands = candidates(up.features, up.config)
        bench.surveyed = await _survey(bench, commands, stage)
        outcomes = [await _outcome(bench, each, up.config.mac, stage) for each in cases]
        stage.now = f"timing, {rounds} rounds of {len(commands)} commands"
        times = await _timed(bench, commands, rounds, up.config.mac)
    return Run(
        origin=device.origin,
        began=began,
        seconds=time.monotonic() - started,
        offered=up.offered,
        features=up.features,
        ring_size=up.geometry.size,
        survey=bench.surveyed,
        cases=tuple(outcomes),
        times=times,
    )


async def _survey(bench: Bench, commands: list[Command], stage: SuiteStage) -> Survey:
    alone = []
    for at, each in enumerate(commands, 1):
        stage.now = f"command {at} of {len(commands)}, {each.NAME}, alone"
        alone.append(await bench.replayed(each))
    stage.now = f"{len(commands)} commands as one batch"
    await bench.reset()
    return surveyed(commands, alone, await bench.replayed(*commands))


async def _outcome(bench: Bench, case: Case, mac: bytes, stage: SuiteStage) -> CaseOutcome:
    """What a case comes to on the device, fresh and with the address that it had."""
    stage.now = f"case {case.id}"
    try:
        await _fresh(bench, mac)
        lacking = case.needs - bench.up.features
        if lacking:
            raise NotApplicable(f"without {FEATURES.sentence(lacking)}")
        seen = tuple(await case.check(bench))
    except (NotApplicable, BadGeometry) as error:
        return CaseOutcome(case, Verdict.NOT_APPLICABLE, (str(error),))
    except (RingBroken, StillInFlight, DeviceRefused) as error:
        return CaseOutcome(case, Verdict.FAIL, (str(error),))
    if not seen:
        return CaseOutcome(case, Verdict.PASS)
    return CaseOutcome(case, Verdict.FAIL if case.level is Level.MUST else Verdict.NOTE, seen)


async def _timed(bench: Bench, commands: list[Command], rounds: int, mac: bytes) -> Times:
    try:
        await _fresh(bench, mac)
        times = await timed(bench, commands, rounds)
        await _fresh(bench, mac)
    except DeviceRefused:
        return Times(0, (), (), None, None)
    return times


async def _fresh(bench: Bench, mac: bytes) -> None:
    """Resets the device, and gives it back an address that a reset did not."""
    await bench.reset()
    if bench.up.config.mac != mac and Feature.CTRL_MAC_ADDR in bench.up.features:
        await bench.replayed(MacAddrSet(mac))
        await bench.reset()
