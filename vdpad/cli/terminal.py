"""Standard output and standard error as what they are: how wide, and which letters they take."""

import codecs
import io
import os
import sys
from typing import TextIO

# Where a terminal does not know its own width.
_USUAL_WIDTH = 80

# What a locale without these letters gets for them; for any other letter it gets "?".
_IN_PLAIN_LETTERS = {"…": "...", "µ": "u"}


def take_any_text() -> None:
    """Lets both take any text, whatever the locale: a letter too many is no reason to fail.

    They are strict by themselves: "…" is no letter of Latin-1, and a file's name need be no text.
    """
    codecs.register_error("vdpad.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vdpad.plain")


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
    """Prints a result; whether it was taken, or who reads has seen enough, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Else the end of the process would complain of what was not flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def tell(text: str) -> None:
    """Says something beside the result: a line on standard error."""
    print(f"vdpactl: {printable(text)}", file=sys.stderr)
