"""A program that has a forker run what it is called with: `python -IS asks_forker.py REQUESTS ...`.

REQUESTS is the descriptor of the forker's socket. It ends as that process does; a signal that is
sent to it reaches itself alone.
"""

import json
import os
import socket
import sys


def _sent(text: str) -> str:
    """As forker.py has it, whose imports would cost more than all else here."""
    return os.fsencode(text).decode("latin-1")


def _main() -> None:
    request = {
        "arguments": [*map(_sent, sys.argv[2:])],
        "env": {_sent(name): _sent(value) for name, value in os.environ.items()},
        "cwd": os.getcwd(),
    }
    ours, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(fileno=int(sys.argv[1])) as requests, told:
        socket.send_fds(requests, [json.dumps(request).encode()], [0, 1, 2, told.fileno()])
    ours.recv(32)  # its pid
    code = int(ours.recv(32))
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    _main()
