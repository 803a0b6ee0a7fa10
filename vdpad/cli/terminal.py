"""Standard output and standard error as what they are: how wide, and which letters they take."""

import codecs
import io
import os
import sys
from typing import TextIO

from vdpad.errors import VdpadError, why

# Where a terminal does not know its own width.
_USUAL_WIDTH = 80

# What a locale without these letters gets for them; for any other letter it gets "?".
_IN_PLAIN_LETTERS = {"…": "...", "µ": "u"}


class NotGiven(VdpadError):
    """A result that could not be written: the disk is full."""


def set_up() -> None:
    """Lets both take any text, whatever the locale: a letter too many is no reason to fail.

    They are strict by themselves: "…" is no letter of Latin-1, and a file's name need be no text.
    Where streams are closed, no file or socket becomes one of them. Standard error is then
    /dev/null, as print and argparse would take standard output for it; standard output stays None.
    """
    _fill_closed()
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    codecs.register_error("vdpad.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vdpad.plain")


def _fill_closed() -> None:
    """Makes descriptors 0 to 2 be there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # both are written to, and never read
    unknown = error.object[error.start : error.end]
    return "".join(_IN_PLAIN_LETTERS.get(letter, "?") for letter in unknown), error.end


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at it; sys's are None where they were closed before the start."""
    return stream is not None and stream.isatty()


def width_of(stream: TextIO | None) -> int | None:
    """How many columns text may take: COLUMNS, else the terminal's; None where it is no terminal.

    What reads a pipe or a file wants a row on a line, however long that is.
    """
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    if stream is None or not is_terminal(stream):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except OSError:
        return _USUAL_WIDTH


def printable(text: str) -> str:
    """A line that a terminal takes for nothing but text, whoever wrote what is in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def give(text: str) -> bool:
    """Prints a result; whether it was taken, or who reads has seen enough, as `head` does.

    Raises:
        NotGiven: it could not be written.
    """
    if sys.stdout is None:
        return False
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _forget(sys.stdout)
        return False
    except OSError as error:
        _forget(sys.stdout)
        raise NotGiven(f"standard output: {why(error)}; the result could not be written") from error
    return True


def give_bytes(data: bytes) -> None:
    """Prints a result that nothing else tells, so it must be taken.

    Raises:
        NotGiven: it was not; also where standard output is closed, or its reader is gone.
    """
    if sys.stdout is None:
        raise NotGiven("standard output is closed; expected it open, or a file to write to")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _forget(sys.stdout)
        raise NotGiven(f"standard output: {why(error)}; the result could not be written") from error


def tell(text: str, program: str = "vdpactl") -> None:
    """Says something beside the result: a line on standard error."""
    say(f"{program}: {printable(text)}")


def say(text: str) -> None:
    """Lines on standard error; where that cannot be written, nobody can be told."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _forget(sys.stderr)


def _forget(stream: TextIO) -> None:
    """Lets go what is not flushed: the end of the process would complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
