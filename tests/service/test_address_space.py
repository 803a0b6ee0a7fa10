"""Threads take little of an address space that is bounded. Each test has a process of its own."""

import subprocess
import sys

from tests.support.daemon import ROOT
from tests.support.waiting import GUARD

# More than the machine has processors for, so that each would have what it allocates from.
THREADS = 130

TAKEN_BY_THREADS = f"""
import os, re, resource, threading
from vdpad.service.address_space import spare_address_space

def taken():
    return int(re.search(r"VmSize:\\s*(\\d+)", open("/proc/self/status").read())[1])

resource.setrlimit(resource.RLIMIT_AS, (1200 << 20,) * 2)
spare_address_space()
before, ends = taken(), threading.Event()
begun = threading.Barrier({THREADS} + 1)

def work():
    allocated = bytearray(4096)
    begun.wait()
    ends.wait()

for _ in range({THREADS}):
    threading.Thread(target=work).start()
begun.wait()
print(taken() - before >> 10)
ends.set()
"""

REFUSED = """
import resource
from vdpad.service.address_space import TooLittleSpace, check_address_space

resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2)
check_address_space(300, "enough")
try:
    check_address_space(301, "do this")
except TooLittleSpace as error:
    print(error)
"""


def said_by(program: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=ROOT, timeout=GUARD, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_take_their_stacks_and_no_more() -> None:
    assert int(said_by(TAKEN_BY_THREADS)) < 40  # in MiB; by themselves they would take 1100


def test_a_bound_is_refused_where_it_is_below_the_need() -> None:
    assert said_by(REFUSED).strip() == (
        "expected 301 MiB of address space at least, got a bound of 300 "
        "(RLIMIT_AS: ulimit -v, LimitAS=); do this"
    )


def test_without_a_bound_nothing_changes() -> None:
    program = (
        "import threading\n"
        "from vdpad.service.address_space import check_address_space, spare_address_space\n"
        "spare_address_space()\n"
        "check_address_space(1 << 40, 'nothing')\n"
        "print(threading.stack_size())\n"
    )
    assert said_by(program).strip() == "0"
