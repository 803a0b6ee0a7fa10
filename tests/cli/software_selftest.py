"""vdpactl, whose selftests find a software device in the place of a vhost-vdpa device named vdpa0.

    python -m tests.cli.software_selftest MISBEHAVIOUR [arguments of vdpactl]

MISBEHAVIOUR is a JSON object: seconds_a_command, or faults by position; and without, the ids of
cases that are left out.
"""

import json
import sys
from typing import Any

from vdpad.cli import selftest, vdpactl
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.device_under_test import DeviceUnderTest, Origin
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour


def main(told: dict[str, Any], arguments: list[str]) -> int:
    """Runs vdpactl."""
    faults = {int(at): Fault(fault) for at, fault in told.pop("faults", {}).items()}
    without = told.pop("without", [])
    cases = {id_: case for id_, case in CASES.items() if id_ not in without}
    selftest.CASES = cases  # type: ignore[attr-defined] # it imports them
    config = SoftwareConfig(misbehaviour=Misbehaviour(faults=faults, **told))

    async def of_host(device: str) -> DeviceUnderTest:
        found = SoftwareUnderTest(device, config)
        found.origin = Origin(device, node="/dev/vhost-vdpa-0")
        return found

    selftest._of_host = of_host
    return vdpactl.main(arguments)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
