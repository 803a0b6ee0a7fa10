"""A daemon that the system gives no more descriptors: each request is answered, and says so."""

import resource
from pathlib import Path

import pytest

from tests.daemon.lending import Lender, lending
from tests.daemon.support import Caller, Json, is_report, software, vlans
from tests.support.daemon import running

KINDS = {"overloaded", "bad-lend"}


@pytest.mark.parametrize("spare", range(8))
async def test_without_descriptors_each_request_is_answered(tmp_path: Path, spare: int) -> None:
    async with running(tmp_path, records={"directory": tmp_path / "records"}) as daemon:
        with Caller(daemon.socket) as caller:
            async with lending() as lender, lending() as another:
                await caller.result("info")
                before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
                few = (len(daemon.descriptors()) + spare, before[1])
                resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, few)
                replies = await asked(caller, lender)
                resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
                wish = {"migration": "vm-3", "state": vlans(1), "target": another.target}
                assert is_report(await caller.result("restore", another.fds, **wish), "restored")
        kinds = [each["error"]["data"]["kind"] for each in replies if "error" in each]
        assert set(kinds) <= KINDS, replies
        assert not daemon.events("internal-error")


async def asked(caller: Caller, lender: Lender) -> list[Json]:
    """The replies to requests of each kind."""
    wish = {"state": vlans(1, 2)}
    return [
        await caller.call("info"),
        await caller.call("check", target=software(), **wish),
        await caller.call("prepare", migration="vm-1", target=software(), **wish),
        await caller.call("commit", migration="vm-1"),
        await caller.call("restore", lender.fds, migration="vm-2", target=lender.target, **wish),
        await caller.call("devices"),
        await caller.call("status"),
    ]
