"""A daemon that tells how much memory it has allocated, to the byte.

`python -m tests.support.load.heap FILE …`: on SIGUSR1 it writes to FILE how many bytes are in use,
garbage collected. The rest of the arguments are vdpad's. What the kernel tells of a process is as
coarse as the arenas of Python's own allocator, a MiB each, so it is run without it.
"""

import ctypes
import gc
import signal
import sys
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.waiting import wait_until
from vdpad.cli.vdpad import main


def command(file: Path) -> list[str]:
    """The command line of such a daemon. Run it in ROOT."""
    return ["env", "PYTHONMALLOC=malloc", sys.executable, "-m", __name__, str(file)]


def allocated_kib(running: Daemon, file: Path) -> int:
    """What such a daemon says."""
    file.unlink(missing_ok=True)
    running.process.send_signal(signal.SIGUSR1)
    wait_until(file.exists)
    return int(file.read_text()) // 1024


class _Mallinfo2(ctypes.Structure):
    """What malloc tells of itself: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _allocated() -> int:
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Mallinfo2
    info = library.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def _tell_on_signal(file: Path) -> None:
    def tell(*_: object) -> None:
        gc.collect()
        whole = file.with_suffix(".new")
        whole.write_text(str(_allocated()))
        whole.rename(file)

    signal.signal(signal.SIGUSR1, tell)


if __name__ == "__main__":
    _tell_on_signal(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
