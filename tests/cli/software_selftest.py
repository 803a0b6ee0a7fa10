"""vdpactl, whose selftests find a software device in the place of a vhost-vdpa device named vdpa0.

    python -m tests.cli.software_selftest MISBEHAVIOUR [arguments of vdpactl]

MISBEHAVIOUR is a JSON object: seconds_a_command, or faults by position.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdpad.cli import selftest, vdpactl
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import Indices, LentQueue
from vdpad.queues.software.device import SoftwareConfig, SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour
from vdpad.queues.vhost_vdpa.errors import DeviceRefused
from vdpad.virtio.features import Feature


class _Up:
    """A software device as a selftest uses a VhostVdpaDevice."""

    def __init__(self, misbehaviour: Misbehaviour) -> None:
        self._device = SoftwareDevice(SoftwareConfig(misbehaviour=misbehaviour))
        self._device.start()
        self.features = self._device.config.features
        self.config = self._device.config.net
        self.geometry = self._device.geometry
        self.event_idx = Feature.RING_EVENT_IDX in self.features

    def queue(self) -> ControlQueue:
        try:
            return LentQueue(
                self.geometry,
                self._device.lend(),
                Indices(),
                event_idx=self.event_idx,
                worth_polling=False,
            )
        except BadLend as error:
            raise DeviceRefused(str(error)) from error

    async def stop(self) -> None:
        await self._device.stop()


def main(told: dict[str, Any], arguments: list[str]) -> int:
    """Runs vdpactl."""
    faults = {int(at): Fault(fault) for at, fault in told.pop("faults", {}).items()}
    stopping = set()

    @contextmanager
    def up(node: Path) -> Iterator[_Up]:
        device = _Up(Misbehaviour(faults=faults, **told))
        try:
            yield device
        finally:
            stopping.add(asyncio.get_running_loop().create_task(device.stop()))

    selftest._node = {"vdpa0": Path("/dev/vhost-vdpa-0")}.__getitem__  # type: ignore[assignment]
    selftest._up = up  # type: ignore[assignment]
    return vdpactl.main(arguments)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
