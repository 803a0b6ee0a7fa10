"""What stands on a command line, and parsers that say what they have to say on any stream."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

from vdpad.cli import terminal
from vdpad.cli.failures import Usage
from vdpad.errors import LONGEST_SOCKET_PATH, long_socket_path
from vdpad.virtio.mac import parse_mac

_STDIN = "-"

_GROUP = 1  # IEEE 802: of the first byte

# An int of C's. And (uid_t) -1 is nobody, setresuid(2).
_MAX_DESCRIPTOR = (1 << 31) - 1
_MAX_UID = (1 << 32) - 2
_MAX_DIGITS = 10
# So that times of all rounds fit into memory with ease.
_MAX_ROUNDS = 100_000


class Parser(argparse.ArgumentParser):
    """One whose help and complaints go where results and remarks go."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse calls it. Raises NotGiven: help that could not be written."""
        if file is sys.stderr:
            terminal.say(message.rstrip("\n"))
        else:
            terminal.give(message.rstrip("\n"))


def file_name(text: str) -> str:
    """The name of a file, which is never empty: a shell's variable that is not set makes one."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    return text


def path(text: str) -> Path:
    """Likewise, as a path: an empty one would be the current folder."""
    return Path(file_name(text))


def socket_path(text: str) -> Path:
    """Likewise, of a Unix socket."""
    place = path(text)
    length = len(os.fsencode(place))
    if length > LONGEST_SOCKET_PATH:
        raise argparse.ArgumentTypeError(long_socket_path(length))
    return place


def textfile(text: str) -> Path:
    """Likewise, of metrics."""
    file = path(text)
    if file.suffix != ".prom":
        raise argparse.ArgumentTypeError(
            f"expected a path that ends in .prom, as node_exporter reads no other, got {text}"
        )
    return file


def mac(text: str) -> bytes:
    """The address of one network card."""
    address = parse_mac(text)
    if address is None or not any(address) or address[0] & _GROUP:
        raise argparse.ArgumentTypeError(
            f"expected one card's MAC address such as 52:54:00:12:34:56, got {text}"
        )
    return address


def descriptor(text: str) -> int:
    """The number of an open file."""
    return _whole_number(text, "a descriptor", _MAX_DESCRIPTOR)


def uid(text: str) -> int:
    """A user by number; names are the operator's to look up."""
    return _whole_number(text, "a uid", _MAX_UID)


def rounds(text: str) -> int:
    """How often something is timed."""
    return _whole_number(text, "a number of rounds", _MAX_ROUNDS, least=1)


def _whole_number(text: str, what: str, most: int, least: int = 0) -> int:
    given = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else -1
    if not least <= given <= most:
        raise argparse.ArgumentTypeError(f"expected {what}, {least} to {most}, got {text}")
    return given


def seconds(text: str) -> float:
    """How long something may take."""
    try:
        given = float(text)
    except ValueError:
        given = math.nan
    if not 0 < given < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text}")
    return given


def refuse_stdin_twice(arguments: argparse.Namespace) -> None:
    """Returns where standard input is read once at the most: the second would find it empty.

    Raises:
        Usage: it is not.
    """
    given = vars(arguments)
    names = [*given.get("files", ()), *map(given.get, ("first", "second", "file", "state"))]
    names += given.get("like", ())
    names.append(given.get("compare"))
    if given.get("target") == f"@{_STDIN}":
        names.append(_STDIN)
    if names.count(_STDIN) > 1:
        raise Usage("expected - once, as standard input can be read once only")
