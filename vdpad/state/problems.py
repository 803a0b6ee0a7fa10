"""What is wrong with a state or a request, told by path."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

__all__ = ["Problem"]

# A path may hold keys that the sender made up. Stops one request from filling logs and replies.
_MAX_PATH = 200
_MAX_MESSAGE = 300
_MAX_PROBLEMS = 64
# Problems in one place. Stops a list that is all wrong from making one of each entry.
_MAX_ALIKE = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: str
    """Where, dotted: "rss.indirection_table.3"."""
    code: str
    """A stable word for programs."""
    message: str
    """A sentence for people."""


InvalidPart = tuple[tuple[str | int, ...], str, str]
"""Where below what is validated, a code, a sentence."""


def invalid(*problems: InvalidPart) -> ValidationError:
    """The error that a validator raises to name places below its own."""
    return ValidationError.from_exception_data(
        "state",
        [
            InitErrorDetails(
                type=PydanticCustomError(code, "{text}", {"text": message}),
                loc=location,
                input=None,
            )
            for location, code, message in problems
        ],
    )


def first_of(alike: Iterator[InvalidPart]) -> list[InvalidPart]:
    """The first of what is wrong in one place, and that there is more, if there is."""
    first = list(islice(alike, _MAX_ALIKE))
    if next(alike, None) is not None:
        first.append(((), "more", f"there are more than these {_MAX_ALIKE}"))
    return first


def problems_of(error: ValidationError, below: int = 0) -> list[Problem]:
    """Problems for people from pydantic's errors; a cut list ends with a line that says so.

    Args:
        error: what pydantic raised.
        below: how many leading parts of each location to leave out.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        Problem(_path(each["loc"][below:]), _code(each["type"]), _message(each))
        for each in found[:_MAX_PROBLEMS]
    ]
    if len(found) > _MAX_PROBLEMS:
        left_out = len(found) - _MAX_PROBLEMS
        problems.append(Problem("", "more", f"{left_out} more problems are not shown"))
    return problems


def summary(problems: Sequence[Problem]) -> str:
    """The first problem, and how many more there are."""
    path, message = problems[0].path, problems[0].message
    first = f"{path}: {message}" if path else message
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more problems)"


def _path(location: Iterable[str | int]) -> str:
    dotted = ".".join(map(str, location))
    printable = "".join(c if c.isprintable() else "?" for c in dotted[: _MAX_PATH + 1])
    return printable if len(printable) <= _MAX_PATH else printable[:_MAX_PATH] + "…"


def _message(each: ErrorDetails) -> str:
    if each["type"] == "extra_forbidden":
        return "no such key is known here; is it misspelt, or of a later version?"
    return each["msg"][:_MAX_MESSAGE]


def _code(pydantic_type: str) -> str:
    return "unknown-key" if pydantic_type == "extra_forbidden" else pydantic_type.replace("_", "-")
