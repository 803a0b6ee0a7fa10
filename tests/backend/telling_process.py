"""vdpad-vhost-user whose software device tells its settings: `… telling_process FILE OPTIONS`.

On SIGUSR1 they are written to the file, as JSON; null where it is not up.
"""

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from vdpad.cli import vdpad_vhost_user
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.service.textfile import write_whole


def main() -> int:
    """As of vdpad-vhost-user."""
    path, device = Path(sys.argv[1]), LoopDevice()

    def tell(number: int, frame: FrameType | None) -> None:
        try:
            settings: Any = device.net.settings()
        except PacketDeviceRefused:
            settings = None
        write_whole(path, json.dumps(settings).encode())

    signal.signal(signal.SIGUSR1, tell)
    with mock.patch.object(vdpad_vhost_user, "open_software", return_value=device):
        return vdpad_vhost_user.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
