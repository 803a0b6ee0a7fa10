"""The API for machines: as an OpenRPC document, and in Varlink's language.

`python -m vdpad.daemon.api.schema openrpc` and `… varlink` print them. docs/openrpc.json holds the
one, and io.vdpad.Daemon.varlink beside this file the other, which the daemon tells who asks it.
"""

import sys

from vdpad.api.describing import DESCRIBED_AS, MachineReadable
from vdpad.daemon.api.api import WATCH
from vdpad.daemon.api.methods import METHODS
from vdpad.daemon.api.params import WatchParams
from vdpad.daemon.api.results import DATA
from vdpad.daemon.api.varlink import INTERFACE, REPLIES, WatchReply
from vdpad.service.varlink.description import MethodShape
from vdpad.service.varlink.interface import called

API = MachineReadable(
    title="vdpad",
    does="Restores virtio-net control-virtqueue state on vDPA devices, over Unix datagrams. "
    "docs/api.md is the contract.",
    methods=METHODS,
    data=DATA,
    interface=INTERFACE,
    says="""\
Restores virtio-net control-virtqueue state on vDPA devices. docs/api.md is the contract.

A parameter that is optional may be left out, or null. Where parameters are not in order the error
is org.varlink.service.InvalidParameter, which has a `message` and all `problems` beside the first
parameter. Descriptors ride on the message (SCM_RIGHTS).\
""",
    replies=REPLIES,
    series=(
        MethodShape(
            called(WATCH),
            "All in these states, oldest first, and then each that changes; only with `more`.",
            WatchParams,
            WatchReply,
        ),
    ),
)


if __name__ == "__main__":
    print(DESCRIBED_AS[sys.argv[1]](API), end="")
