"""Many mutated sessions, and an honest one after each.

The device of both is the same. It was asked for what device.py permits, and is stopped after each;
and the honest front end gets byte for byte what it would have got from a device that has seen
nobody before.
"""

from collections.abc import Mapping
from random import Random
from typing import Self

from tests.vhost_user.fuzz.bench import Bench, Held
from tests.vhost_user.fuzz.judging_device import JudgingDevice
from tests.vhost_user.fuzz.mutations import mutated
from tests.vhost_user.fuzz.script import Script, Shrink, record

_UNWILLING = (
    *("add_memory", "remove_memory", "start", "enable", "set_call", "stop"),
    *("set_config", "reset", "save", "load"),
)


class Fault(AssertionError):
    """A session did what no session may."""


class Fuzzer:
    """Sessions of one seed, by number; each is the same whenever it is held."""

    def __init__(self, seed: int, scripts: tuple[Script, ...], honest: Mapping[str, Held]) -> None:
        self._seed = seed
        self._scripts = scripts
        self._honest = honest

    @classmethod
    async def record(cls, seed: int) -> Self:
        """Records what goes well, and how it is answered."""
        scripts = await record()
        return cls(
            seed,
            scripts,
            {each.name: await _bench(JudgingDevice(each.queues)).hold(each) for each in scripts},
        )

    async def hold(self, number: int) -> None:
        """A mutated session, and an honest one after it.

        Raises:
            Fault: one of them did what no session may.
        """
        random = Random(f"{self._seed} {number}")
        script = mutated(random, self._scripts)
        device = JudgingDevice(script.queues)
        bench = _bench(device)
        try:
            await _hold_mutated(random, device, bench, script)
            await self._hold_honest(device, bench, script.name)
        except Exception as error:
            raise Fault(f"session {number} of seed {self._seed}: {script}") from error

    async def _hold_honest(self, device: JudgingDevice, bench: Bench, name: str) -> None:
        device.unwilling, device.can_move, device.needs_reset = set(), True, False
        device.touches_memory = True
        (script,) = (each for each in self._scripts if each.name == name)
        assert await bench.hold(script) == self._honest[name]
        assert device.started is None
        assert device.mapped == []


def _bench(device: JudgingDevice) -> Bench:
    return Bench(device, lambda: device.until(lambda: device.waits_for_state))


async def _hold_mutated(
    random: Random, device: JudgingDevice, bench: Bench, script: Script
) -> None:
    device.unwilling = {*random.sample(_UNWILLING, random.choice((0, 0, 0, 1, 2)))}
    device.can_move = random.random() < 0.9
    device.needs_reset = random.random() < 0.1
    device.touches_memory = not any(isinstance(step, Shrink) for step in script.steps)
    await bench.hold(script)
    assert device.started is None
    if "remove_memory" in device.unwilling:
        device.mapped.clear()
    assert device.mapped == []
