"""Where a daemon is found: its sockets on this host, host and port on another."""

import re
from pathlib import Path

from vdpad.errors import VdpadError

DEFAULT_SOCKET = Path("/run/vdpad/vdpad.sock")
"""Where the daemon takes datagrams and its clients look, unless they are told otherwise."""

DEFAULT_VARLINK = Path("/run/vdpad/io.vdpad")
"""The same for connections."""

BACK_ENDS = Path("/run/vdpad/vhost-user")
"""Where each back end of this host has a folder by its name, with its sockets."""

BACK_END_CONTROL = "control"
"""That for datagrams."""

BACK_END_VARLINK = "io.vdpad"
"""That for connections."""

DAEMON_INTERFACE = "io.vdpad.Daemon"
BACK_END_INTERFACE = "io.vdpad.BackEnd"
"""The names of the APIs in Varlink."""


_MAX_PORT = 0xFFFF

DEFAULT_PORT = 7117
"""The UDP port that vdpactl asks at between hosts, unless it is told another."""


# A host or an IPv6 address in brackets, and a port; or an IPv6 address alone.
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[^][]+)\]|(?P<host>[^][:]+))(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<bare>[^][:]*:[^][:]*:[^][]*)"
)


class BadAddress(VdpadError):
    """A host and port that make no sense."""


def host_and_port(address: str, default_port: int | None = None) -> tuple[str, int]:
    """The parts of "host:port", where an IPv6 address with a port stands in brackets.

    Args:
        address: such as "192.0.2.1:7117", "[2001:db8::1]:7117", "host-b".
        default_port: where the address has none; None if it must have one.

    Raises:
        BadAddress: it makes no sense.
    """
    match = _ADDRESS.fullmatch(address)
    if match is not None:
        host = match["v6"] or match["host"] or match["bare"]
        port = default_port if match["port"] is None else int(match["port"])
        if port is not None and port <= _MAX_PORT:
            return host, port
    raise BadAddress(
        f"{address}: expected host:port, or [IPv6 address]:port, with a port up to {_MAX_PORT}"
    )
