"""All cases, in the order in which they run."""

from collections.abc import Mapping

from vdpad.conformance.case import Case
from vdpad.conformance.cases import framing, illegal, legal, malformed, order, reset, ring

CASES: Mapping[str, Case] = {
    case.id: case
    for room in (ring, framing, legal, order, reset, malformed, illegal)
    for case in room.CASES
}
"""By id."""
