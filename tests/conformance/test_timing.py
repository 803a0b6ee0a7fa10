"""What times are told of rounds."""

import pytest

from vdpad.conformance.bench import on_bench
from vdpad.conformance.commands import candidates
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.conformance.timing import Spread, spread, timed
from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour


@pytest.mark.parametrize(
    ("times", "p50", "p99"),
    [([7.0], 7, 7), ([3.0, 1.0, 2.0], 2, 3), ([float(each) for each in range(1, 201)], 100, 198)],
)
def test_percentiles_are_times_that_were_measured(
    times: list[float], p50: float, p99: float
) -> None:
    assert spread(times) == Spread(p50, p99)


async def test_each_command_is_timed_in_every_round() -> None:
    async with on_bench(SoftwareUnderTest("sim0", SoftwareConfig()), 5.0) as bench:
        await bench.reset()
        commands = candidates(bench.up.features, bench.up.config)
        times = await timed(bench, commands, 3)
    assert times.rounds == 3
    assert len(times.commands) == len(times.in_batches) == len(commands)
    assert times.alone is not None
    assert times.batch is not None
    assert all(0 < each.p50_us <= each.p99_us for each in (*times.commands, *times.in_batches))
    assert times.alone.p99_us >= sum(each.p50_us for each in times.commands) / len(commands)


async def test_a_round_that_is_not_whole_counts_for_nothing() -> None:
    # Alone, as a batch, in batches of 8, and what undoes them.
    commands = candidates(SoftwareConfig().features, SoftwareConfig().net)
    count = (1 + 1 + 8) * len(commands) + 1 + 1 + 8
    silent = Misbehaviour(faults={2 * count + 1: Fault.SILENCE})
    device = SoftwareUnderTest("sim0", SoftwareConfig(misbehaviour=silent))
    async with on_bench(device, 0.5) as bench:
        await bench.reset()
        times = await timed(bench, commands, 5)
        assert times.rounds == 2
        assert (await timed(bench, commands, 5)).commands == ()


async def test_a_device_without_commands_has_no_times() -> None:
    async with on_bench(SoftwareUnderTest("sim0", SoftwareConfig()), 5.0) as bench:
        await bench.reset()
        assert (await timed(bench, [], 3)).alone is None
