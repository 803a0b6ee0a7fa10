"""Runs in the service's place: tries what it should not be able to, and prints what came of it.

Run by the system's Python with nothing else, so it imports nothing of ours.
"""

import ctypes
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable


def told(attempt: Callable[[], object]) -> str:
    """What came of it: "yes", or the error's name."""
    try:
        attempt()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return "yes"


def write_to(folder: str) -> None:
    """Makes a file, and removes it."""
    path = os.path.join(folder, "probe")
    with open(path, "w"):
        pass
    os.unlink(path)


def call(name: str, *arguments: int) -> None:
    """A function of the C library's that returns -1 where it fails."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def attempts() -> dict[str, Callable[[], object]]:
    """By name."""
    inet = (socket.AF_INET, socket.SOCK_DGRAM)
    return {
        "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "inet": lambda: socket.socket(*inet).sendto(b"x", ("127.0.0.1", 9)),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16),
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "vhost-vdpa": lambda: os.close(os.open("/dev/vhost-vdpa-1", os.O_RDWR)),
        "another device": lambda: os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY),
        "null": lambda: os.open("/dev/null", os.O_RDWR),
        "write etc": lambda: write_to("/etc"),
        "write usr": lambda: write_to("/usr/lib/vdpad"),
        "write run": lambda: write_to("/run/vdpad"),
        "write records": lambda: write_to("/run/vdpad/records"),
        "write metrics": lambda: write_to("/run/vdpad/metrics"),
        "write collected": lambda: write_to("/var/lib/prometheus/node-exporter"),
        "write tmp": lambda: write_to("/tmp"),
        "read home": lambda: os.listdir("/root"),
        "see others": lambda: os.listdir("/proc/1"),
        "chown": lambda: os.chown("/run/vdpad/records", os.getuid(), os.getgid()),
        "new user namespace": lambda: call("unshare", 0x10000000),
        "ptrace": lambda: call("ptrace", 0, 0, 0, 0),
        "executable memory": lambda: mmap.mmap(-1, 4096, prot=7),
        "fork": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: told(each) for name, each in attempts().items()}))
