"""How vdpactl ends: the one table of its exit codes, and which error ends in which."""

from collections.abc import Mapping

from vdpad.cli.failures import CannotProvision, CannotTest, InvalidState, QmpError, Usage
from vdpad.cli.transport import BadTransport
from vdpad.client import Refused, Unreachable
from vdpad.errors import VdpadError
from vdpad.methods import CannotSend
from vdpad.wire.addresses import BadAddress
from vdpad.wire.keys import BadKeys

OK = 0
FAILED = 1
USAGE = 2
INCOMPATIBLE = 3
REJECTED = 4
TIMEOUT = 5
BROKEN = 6
UNREACHABLE = 7
FAULTY = 8
NO_DEVICE = 9
BUSY = 10
SLOWER = 11

MEANINGS: Mapping[int, str] = {
    OK: "done",
    FAILED: "the daemon failed, or refused for another reason than those below (busy, conflict, "
    "not-allowed, overloaded, ...); diff found a difference; selftest may not have the device; "
    "it was done, and its result could not be written",
    USAGE: "usage, or a file, state or target that makes no sense or is too large to be sent",
    INCOMPATIBLE: "the device cannot take the state; provision cannot make such a device",
    REJECTED: "the device refused commands",
    TIMEOUT: "it did not answer in time",
    BROKEN: "it broke the rules of the ring",
    UNREACHABLE: "no daemon, or no QEMU, could be asked; what became of a request, status tells",
    FAULTY: "selftest found the device faulty",
    NO_DEVICE: "selftest found no such device, or none with a control virtqueue; there is no such "
    "device to deprovision, or none of this name to provision on",
    BUSY: "selftest found that another process has the device",
    SLOWER: "selftest found the device slower than before, and not faulty",
}
"""For vdpactl(1) and --help."""

_OF_REFUSALS = {
    "invalid-params": USAGE,
    "invalid-request": USAGE,
    "parse-error": USAGE,
    "incompatible": INCOMPATIBLE,
    "rejected": REJECTED,
    "timeout": TIMEOUT,
    "device-broken": BROKEN,
}
_OF_SELFTESTS = {"no-such-device": NO_DEVICE, "device-broken": FAULTY, "busy": BUSY}

_USAGE = (Usage, InvalidState, CannotSend, BadTransport, BadAddress, BadKeys)


def exit_code_of(error: VdpadError) -> int:
    """The exit code for what ended a command."""
    match error:
        case CannotTest():
            return _OF_SELFTESTS.get(error.kind, FAILED)
        case CannotProvision() if error.kind == "no-such-device":
            return NO_DEVICE
        case Refused():
            return _OF_REFUSALS.get(error.kind, FAILED)
        case Unreachable() | QmpError():
            return UNREACHABLE
    return USAGE if isinstance(error, _USAGE) else FAILED
