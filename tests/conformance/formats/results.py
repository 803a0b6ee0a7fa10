"""A result with a case of every verdict, and with text that means something to a format."""

from tests.conformance.results import outcome, self_test
from vdpad.conformance.case import Verdict
from vdpad.conformance.self_test import SelfTest

HOSTILE = 'a <b> & "c" # d \\ ]]> \x1b[2J\n'


def mixed() -> SelfTest:
    """Passed, failed, noted and skipped, in this order."""
    return self_test(
        outcome("ring.full"),
        outcome("used.once", Verdict.FAIL, HOSTILE, "twice"),
        outcome("used.order", Verdict.NOTE, HOSTILE),
        outcome("vlan-add.zero", Verdict.NOT_APPLICABLE, "without # CTRL_VLAN"),
        notes=("5 of 8 commands",),
    )


def of_hostile_name() -> SelfTest:
    """The same, of a device whose owner chose its name with care."""
    result = mixed()
    identity = result.identity.model_copy(update={"device": HOSTILE})
    return result.model_copy(update={"identity": identity})
