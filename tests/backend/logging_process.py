"""vdpad-vhost-user whose software device is logged in one way: `… logging_process WAY OPTIONS`.

The way is `relay`; `restart`: the same on a device that cannot be resumed; `everything`, of one
that cannot be suspended; or `forgetful`: a relay that leaves every hundredth page unmarked.
"""

import sys
from contextlib import ExitStack
from typing import Any
from unittest import mock

from tests.vhost_user.forgetful_log import forgetful_logs
from vdpad.cli import vdpad_vhost_user
from vdpad.queues.software.packet_device import PacketDevice
from vdpad.queues.vhost_vdpa.errors import Unsupported

_LESS: dict[str, dict[str, Any]] = {
    "restart": {"can_resume": False},
    "everything": {
        "can_suspend": False,
        "can_resume": False,
        "suspend": mock.Mock(side_effect=Unsupported("SUSPEND: not here")),
    },
}
"""What the device has not, by the way."""

_MORE = {"everything": ["--in-order"]}
"""Options, by the way."""


def main() -> int:
    """As of vdpad-vhost-user."""
    way, options = sys.argv[1], sys.argv[2:]
    with ExitStack() as stack:
        if way in _LESS:
            stack.enter_context(mock.patch.multiple(PacketDevice, **_LESS[way]))
        if way == "forgetful":
            stack.enter_context(forgetful_logs())
        return vdpad_vhost_user.main(options + _MORE.get(way, []))


if __name__ == "__main__":
    sys.exit(main())
