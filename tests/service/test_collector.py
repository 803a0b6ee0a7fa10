"""What a full garbage collection has to look at in a process that has started."""

import re
import sys
from pathlib import Path

import pytest

from tests.backend.process import BackEndProcess
from tests.support.daemon import Daemon

COUNTED = """
import atexit, gc, sys
atexit.register(lambda: print("collected:", len(gc.get_objects()), file=sys.stderr))
from vdpad.cli.{program} import main
sys.exit(main())
"""

# What is left of some 50 000.
FEW = 10_000


@pytest.mark.parametrize("program", ["vdpad", "vdpad_vhost_user"])
def test_a_full_collection_looks_at_nothing_that_a_start_leaves_for_good(
    tmp_path: Path, program: str
) -> None:
    command = (sys.executable, "-c", COUNTED.format(program=program))
    process: Daemon | BackEndProcess
    if program == "vdpad":
        process = Daemon(tmp_path, command).ready()
    else:
        process = BackEndProcess(tmp_path, program=command).ready()
    assert process.stop() == 0, process.log()
    (count,) = re.findall(r"^collected: (\d+)$", process.log(), re.M)
    assert int(count) < FEW
