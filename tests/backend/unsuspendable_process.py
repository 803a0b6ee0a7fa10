"""vdpad-vhost-user whose software device cannot be suspended: `… unsuspendable_process OPTIONS`."""

import sys
from unittest import mock

from vdpad.cli import vdpad_vhost_user
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.vhost_vdpa.errors import Unsupported


def main() -> int:
    """As of vdpad-vhost-user."""
    with (
        mock.patch.multiple(LoopDevice, can_suspend=False, can_resume=False),
        mock.patch.object(LoopDevice, "suspend", side_effect=Unsupported("SUSPEND: not here")),
    ):
        return vdpad_vhost_user.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
