"""vdpad as a service manager starts it that hands its standard input over, as descriptor 3."""

import os
import sys

from vdpad.cli import vdpad


def main() -> int:
    """Runs vdpad; its environment says what else the manager has to say."""
    os.dup2(0, 3)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ["LISTEN_PID"] = str(os.getpid())
    return vdpad.main()


if __name__ == "__main__":
    sys.exit(main())
