"""Runs vdpactl and prints what that cost, as JSON: `python -m tests.cli.cost ARGUMENTS …`.

A process between it and the tests, whose memory would count as its own. That vdpactl has been
imported is not in the costs.
"""

import json
import os
import sys

from vdpad.cli import vdpactl


def main() -> int:
    """Twice: first as who waits, and then as vdpactl."""
    child = os.fork()
    if not child:
        return vdpactl.main(sys.argv[1:])
    _, status, usage = os.wait4(child, 0)
    cost = {
        "code": os.waitstatus_to_exitcode(status),
        "mib": usage.ru_maxrss / 1024,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }
    os.write(sys.stderr.fileno(), f"\n{json.dumps(cost)}".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
