"""vdpad-vhost-user whose software device is logged in one way: `… logging_process WAY OPTIONS`.

The way is `relay`, `everything`, or `forgetful`: a relay that leaves every hundredth page unmarked.
"""

import sys
from contextlib import ExitStack
from unittest import mock

from tests.vhost_user.forgetful_log import forgetful_logs
from vdpad.cli import vdpad_vhost_user
from vdpad.queues.software.packet_device import PacketDevice


def main() -> int:
    """As of vdpad-vhost-user."""
    way = sys.argv[1]
    with ExitStack() as stack:
        if way == "everything":
            stack.enter_context(mock.patch.object(PacketDevice, "can_resume", new=False))
        if way == "forgetful":
            stack.enter_context(forgetful_logs())
        return vdpad_vhost_user.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
