"""Runs a command and prints what it cost, as JSON: `python -IS cost.py COMMAND …`.

A process of its own, since the kernel counts the memory of who started a command as that command's.
"""

import json
import os
import sys

child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
cost = {
    "code": os.waitstatus_to_exitcode(status),
    "mib": usage.ru_maxrss / 1024,
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
}
os.write(sys.stderr.fileno(), f"\n{json.dumps(cost)}".encode())
