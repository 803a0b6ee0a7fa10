"""The way without a pipeline: one command, one doorbell, one wait.

What the replay is held against. Everything is encoded ahead, as for the replay, and the wait is a
plain busy look at the ring, so the difference is the pipeline and nothing else. It runs in a
process of its own, as the daemon does, since whoever lends the ring may have to pass doorbells on:

    python -m benchmarks.one_by_one MEMORY KICK CALL  <  {"state": …, "target": …}
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from vdpad.daemon.api.params import CheckParams
from vdpad.daemon.targets.lent import LentTarget
from vdpad.daemon.targets.target_params import LentParams
from vdpad.queues.control_queue import ControlQueue, split_ring
from vdpad.restore.plan import Plan, plan
from vdpad.restore.program import Program, encode


@dataclass(frozen=True)
class OneByOne:
    """What it came to."""

    commit_us: int
    doorbells: int
    refused: int


def send_one_by_one(programs: list[Program], queue: ControlQueue) -> OneByOne:
    """Sends each when the one before it has come back."""
    ring = split_ring(queue)
    start = queue.next_index
    refused = 0
    ring.ask_for_no_interrupt(start)
    began = time.perf_counter_ns()
    for at, program in enumerate(programs):
        (bank,) = program.banks
        ring.buffers[: len(bank.buffers)] = bank.buffers
        assert bank.descriptors is not None
        ring.descriptors[: len(bank.descriptors)] = bank.descriptors
        ring.place(start + at, bank.segment.heads[:2])
        ring.publish(start + at + 1)
        queue.kick()
        while not ring.returned_since(start + at):
            pass
        refused += ring.buffers[0] != 0
    elapsed = time.perf_counter_ns() - began
    return OneByOne(elapsed // 1000, len(programs), refused)


def _run(asked: dict[str, Any], fds: list[int]) -> OneByOne:
    params = CheckParams.model_validate_json(json.dumps(asked))
    assert isinstance(params.target, LentParams)
    target = LentTarget.of(params.target)
    planned = plan(params.state, target.capabilities)
    assert isinstance(planned, Plan), planned
    programs = [
        encode((command,), target.geometry, event_idx=False) for command in planned.commands
    ]
    queue = target.open(fds, os.geteuid())
    try:
        return send_one_by_one(programs, queue)
    finally:
        queue.close()


if __name__ == "__main__":
    print(json.dumps(asdict(_run(json.load(sys.stdin), list(map(int, sys.argv[1:]))))))
