"""A daemon whose software devices write down each command that they carry out.

`python -m tests.between_hosts.counting FILE …`: a line a command, the device's own word, whatever
the daemon makes of it. The rest of the arguments are vdpad's.
"""

import sys
from pathlib import Path

from vdpad.cli.vdpad import main
from vdpad.queues.software.net import NetDevice


def count_in(path: Path) -> None:
    """From now on every device of this process writes there."""
    carry_out = NetDevice.command
    lines = path.open("a", buffering=1)

    def command(self: NetDevice, readable: bytes) -> int:
        ack = carry_out(self, readable)
        lines.write(f"{readable.hex()} {ack}\n")
        return ack

    NetDevice.command = command  # type: ignore[method-assign]


if __name__ == "__main__":
    count_in(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
