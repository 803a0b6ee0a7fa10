"""What a full garbage collection has to look at in a daemon that has started."""

import sys
from pathlib import Path

from tests.support.daemon import Daemon

COUNTED = """
import atexit, gc, sys
atexit.register(lambda: print("collected:", len(gc.get_objects()), file=sys.stderr))
from vdpad.cli.vdpad import main
sys.exit(main())
"""

# What is left of some 50 000.
FEW = 10_000


def test_a_full_collection_looks_at_nothing_that_a_start_leaves_for_good(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, (sys.executable, "-c", COUNTED)).ready()
    assert daemon.stop() == 0, daemon.log()
    counts = [line for line in daemon.log().splitlines() if line.startswith("collected:")]
    assert next(int(line.split()[1]) for line in counts) < FEW
