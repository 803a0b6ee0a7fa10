"""A device that was brought up is given up again, unless it comes to a commit."""

import json
import time

import pytest

from tests.daemon.operations.shown import ME
from tests.daemon.support import HASH_REPORT, Json, vlans
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operation import RestoreRequest
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.requester import NotYours, Requester
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.records.directory import Records
from vdpad.daemon.settings import Limits, Replay, Software
from vdpad.daemon.targets.software import SoftwareTarget
from vdpad.restore.plan import DoesNotFit
from vdpad.state.model import NetState


class Counting(SoftwareTarget):
    """Counts how often it is given up."""

    given_up = 0

    async def give_up(self) -> None:
        self.given_up += 1


@pytest.fixture
def target() -> Counting:
    return Counting(Software(name="sim0", features=frozenset({17, 19})))


@pytest.fixture
def operations() -> Operations:
    return Operations(Limits(), Replay(), Records(None), RunningCommits(), Changes())


def wish(target: Counting, state: Json) -> RestoreRequest:
    named = {"kind": "software", "name": "sim0"}
    return RestoreRequest(
        "vm-1",
        NetState.model_validate_json(json.dumps(state)),
        target,
        named,
        time.perf_counter_ns(),
        ME,
        ME.owning(),
    )


async def test_where_the_state_does_not_fit(operations: Operations, target: Counting) -> None:
    with pytest.raises(DoesNotFit) as caught:
        await operations.prepare(wish(target, HASH_REPORT))
    assert [each.path for each in caught.value.problems]
    assert target.given_up == 1
    assert operations.newest_first(ME) == []


async def test_at_a_cancellation(operations: Operations, target: Counting) -> None:
    await operations.prepare(wish(target, vlans(1)))
    await operations.cancel("vm-1", ME)
    assert target.given_up == 1


async def test_at_the_daemon_s_end(operations: Operations, target: Counting) -> None:
    await operations.prepare(wish(target, vlans(1)))
    assert target.given_up == 0
    await operations.stop()
    assert target.given_up == 1


async def test_the_device_of_another_s_migration_is_not_released(
    operations: Operations, target: Counting
) -> None:
    stranger = Requester(1001)
    operation = await operations.prepare(wish(target, vlans(1)))
    for migration in ("vm-1", "vm-2"):
        with pytest.raises(NotYours):
            operations.device_goes(migration, stranger)
        assert operation.state is State.PREPARED
    operations.device_goes("vm-2", Requester(1001, is_operator=True))
    operations.device_goes("vm-1", ME)
    assert operation.state is State.CANCELLED
