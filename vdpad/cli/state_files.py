"""States out of files, in whatever format: for all commands that take one."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from vdpad.cli.failures import InvalidState, Usage
from vdpad.cli.progress import CountedFile, shown
from vdpad.errors import why
from vdpad.state.formats import native, recognise
from vdpad.state.formats.recognise import Reading
from vdpad.state.found import FormatError, Found
from vdpad.state.model import NetState

T = TypeVar("T")

_STDIN = 0


def reading_of(name: str) -> Reading:
    """What a file holds.

    Args:
        name: its path; "-" is standard input.

    Raises:
        Usage: it cannot be read, or is in no format that is known.
    """
    return read_file(name, recognise.read)


def read_file(name: str, read: Callable[[io.BufferedReader], T]) -> T:
    """What a reader makes of a file.

    Args:
        name: its path; "-" is standard input.
        read: the reader, which is told nothing but the file's bytes.

    Raises:
        Usage: it cannot be read, or is in no format that is known.
    """
    try:
        with _opened(name) as raw, shown(lambda: f"{name}: {raw.how_far()} read"):
            file: io.BufferedReader = io.BufferedReader(raw)
            with file:
                return read(file)
    except FormatError as error:
        raise Usage(f"{name}: {error}") from error
    except (OSError, ValueError) as error:
        raise Usage(f"{name}: {why(error)}") from error


def _opened(name: str) -> CountedFile:
    return CountedFile(_STDIN, closefd=False) if name == "-" else CountedFile(name)


def found_in(name: str, device: str | None) -> Found:
    """The only device of a file, or that of this name; one without a name has every name.

    Raises:
        Usage: as reading_of does, or the device is not there, or there are several to choose from.
    """
    return choose(reading_of(name).devices, device, name)


def choose(devices: Sequence[Found], device: str | None, name: str) -> Found:
    """The only device, or that of this name; `name` is the file's, for the message."""
    fitting = [each for each in devices if device is None or each.device in ("", device)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(each.device for each in devices) or "none"
    if device is None:
        expected = "a virtio-net device" if not devices else "--device to say which one"
        raise Usage(f"{name}: expected {expected}; there: {there}")
    raise Usage(f"{name}: expected one device named {device}; there: {there}")


def state_of(found: Found, name: str) -> NetState:
    """The state that was found.

    Raises:
        InvalidState: there is none.
    """
    if found.state is None:
        which = f"{name}, {found.device}" if found.device else name
        raise InvalidState(f"{which}: no valid state", [asdict(each) for each in found.problems])
    return found.state


def remarks(found: Found) -> list[str]:
    """What a state leaves open, a line each."""
    return [
        *(f"missing: {each.part}: {each.why}" for each in found.missing),
        *(f"note: {each}" for each in found.notes),
    ]


def to_json(found: Found) -> dict[str, Any]:
    """All that was found, as plain values."""
    return {
        "device": found.device,
        "state": None if found.state is None else native.plain(found.state),
        "problems": [asdict(each) for each in found.problems],
        "missing": [asdict(each) for each in found.missing],
        "notes": list(found.notes),
        "about": dict(found.about),
    }
