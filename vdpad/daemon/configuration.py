"""The configuration: one file and its drop-ins, read into Settings.

Beside FILE stands conf.d: its *.toml, in the order of their names, are laid over FILE, one over the
other. A table is merged key by key, anything else replaces what stood there. What is wrong is told
with the file that says so, which is the last one that has the key.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdpad.daemon.settings import Settings
from vdpad.errors import VdpadError, why
from vdpad.state.problems import Problem, problems_of, summary

_DROP_INS = "conf.d"
# Stops a wrong path, such as a log, from being read whole.
_MAX_FILE = 1 << 20


class BadSettings(VdpadError):
    """A configuration that cannot be used: which file, which key, and why."""


def load_settings(path: Path | None, **overrides: Any) -> Settings:
    """Reads a configuration; without a file, the defaults.

    Args:
        path: a TOML file, which must be there; its drop-ins need not.
        overrides: settings that the command line gives; None leaves the files'.

    Raises:
        BadSettings: unreadable, not TOML, or with a key or value that does not belong there.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    files = {} if path is None else {each: _read(each) for each in _files(path)}
    merged: dict[str, Any] = {}
    for read in files.values():
        merged = _laid_over(merged, read)
    try:
        return Settings.model_validate(merged).model_copy(update=given)
    except ValidationError as error:
        problems = problems_of(error)
        raise BadSettings(f"{_origin(problems[0], files)}: {summary(problems)}") from error


def _files(path: Path) -> Iterator[Path]:
    yield path
    try:
        yield from sorted((path.parent / _DROP_INS).glob("*.toml"))
    except OSError as error:
        raise BadSettings(f"{path.parent / _DROP_INS}: {why(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise BadSettings(f"{path}: expected at most {_MAX_FILE} bytes")
        return tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
            raise BadSettings(f"{path}: expected TOML: {error}") from error
        raise BadSettings(f"{path}: {why(error)}") from error


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[key] = _laid_over(known, value) if both else value  # type: ignore[arg-type]
    return merged


def _origin(problem: Problem, files: Mapping[Path, dict[str, Any]]) -> str:
    """The file that has what is wrong; of a key that is missing, the one that has its table."""
    keys = problem.path.split(".")
    for length in range(len(keys), 0, -1):
        for path, read in reversed(list(files.items())):
            if _has(read, keys[:length]):
                return str(path)
    return str(next(iter(files), "settings"))


def _has(read: Any, keys: list[str]) -> bool:
    for key in keys:
        if isinstance(read, list) and key.isdecimal() and int(key) < len(read):
            read = read[int(key)]
        elif isinstance(read, dict) and key in read:
            read = read[key]
        else:
            return False
    return True
