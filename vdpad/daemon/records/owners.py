"""Whose an operation is."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class Owners:
    """The user who prepared it, and the one for whom he did."""

    user: Annotated[int, Field(ge=-1, lt=1 << 32)] | None
    """A uid, or ANOTHER_HOST; None where an older vdpad did not write it down."""
    committer: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None
    """A uid; None where none was named."""


NOBODY = Owners(None)
