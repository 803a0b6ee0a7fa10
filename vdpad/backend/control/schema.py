"""The control socket's API for machines: as an OpenRPC document, and in Varlink's language.

`python -m vdpad.backend.control.schema openrpc` and `… varlink` print them.
docs/backend.openrpc.json holds the one, and io.vdpad.BackEnd.varlink beside this file the other,
which the back end tells who asks it.
"""

import sys

from vdpad.api.describing import DESCRIBED_AS, MachineReadable
from vdpad.api.params import NoParams
from vdpad.backend.control.methods import METHODS, WATCH
from vdpad.backend.control.results import DATA
from vdpad.backend.control.varlink import INTERFACE, WatchedReply
from vdpad.service.varlink.description import MethodShape
from vdpad.service.varlink.interface import called

API = MachineReadable(
    title="vdpad-vhost-user",
    does="Gives a vDPA device to a VMM, and tells what its guest has set, over Unix datagrams. "
    "docs/api.md is the contract.",
    methods=METHODS,
    data=DATA,
    interface=INTERFACE,
    says="""\
Gives a vDPA device to a VMM, and tells what its guest has set. docs/api.md is the contract.

Where parameters are not in order the error is org.varlink.service.InvalidParameter, which has a
`message` and all `problems` beside the first parameter.\
""",
    series=(
        MethodShape(
            called(WATCH),
            "What Status tells, and then each time that it is something else; only with `more`.",
            NoParams,
            WatchedReply,
        ),
    ),
)


if __name__ == "__main__":
    print(DESCRIBED_AS[sys.argv[1]](API), end="")
