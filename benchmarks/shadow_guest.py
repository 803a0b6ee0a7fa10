"""A guest that times its commands: the driver of a control queue, and no more than that."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.guest import GuestQueue
from vdpad.virtio.commands import VlanAdd, VlanDel

_VLANS = 100


@dataclass(frozen=True)
class Times:
    """When each command was made available and seen back, in perf_counter_ns."""

    began: list[int]
    ended: list[int]

    def us(self) -> list[float]:
        """How long each took, in microseconds; sorted."""
        return sorted((b - a) / 1000 for a, b in zip(self.began, self.ended, strict=True))


def vlan_commands(count: int) -> list[bytes]:
    """Commands that are acked OK, and leave as few settings as they find."""
    ids = range(1, _VLANS + 1)
    turn = [*(VlanAdd(each).encode() for each in ids), *(VlanDel(each).encode() for each in ids)]
    return [turn[at % len(turn)] for at in range(count)]


def send_one_by_one(queue: GuestQueue, commands: Sequence[bytes], *, yields: bool = False) -> Times:
    """Sends each as soon as the one before was seen back, looking at the ring all the while.

    Args:
        queue: the guest's.
        commands: that are acked OK.
        yields: whether the guest shares its processor with others, and lets them have it.

    Raises:
        SystemExit: one was not acked OK.
    """
    driver, times = queue.driver, Times([], [])
    for command in commands:
        driver.submit([command], [1], queue.way)
        driver.ask_for_interrupt(1)
        began = time.perf_counter_ns()
        if driver.publish():
            os.eventfd_write(queue.kick, 1)
        while not driver.returned:
            if yields:
                os.sched_yield()
        times.ended.append(time.perf_counter_ns())
        times.began.append(began)
        ((_, _, answer),) = driver.collect()
        if answer != b"\0":
            raise SystemExit(f"expected {command.hex()} to be acked OK, got {answer.hex()}")
    return times
