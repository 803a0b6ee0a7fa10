"""A target that does not come up."""

import asyncio
import time
from typing import Any, cast

from tests.daemon.operations.shown import ME
from vdpad.daemon.operations.operation import RestoreRequest
from vdpad.daemon.targets.interface import Target
from vdpad.state.model import NetState


class SlowTarget:
    """It is waited for until that is cancelled, and takes a moment to be let go of."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = 0

    async def bring_up(self, *_: object) -> Any:
        """Does not return."""
        self.asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.let_go += 1

    async def until_asked(self, times: int = 1) -> None:
        """Returns once it has been asked for so often."""
        while self.asked < times:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def wish(self, migration: str = "vm-1") -> RestoreRequest:
        """For nothing, on this target."""
        return RestoreRequest(
            migration,
            NetState.model_validate_json('{"version": 1, "features": []}'),
            cast("Target", self),
            {"kind": "vhost-vdpa", "device": "vdpa0"},
            time.perf_counter_ns(),
            ME,
            ME.owning(),
        )
