"""An interface's description, from models."""

from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from vdpad.service.varlink.description import MethodShape, describe


class Colour(StrEnum):
    """Light of one kind."""

    RED = "red"
    GREEN = "green"


class Dashed(StrEnum):
    ONE = "not-a-name"


class Inner(BaseModel):
    """What is inside."""

    colour: Colour
    dashed: Dashed


class One(BaseModel):
    kind: Literal["one"]
    both: int
    first: str


class Other(BaseModel):
    kind: Literal["other"]
    both: int


class Asked(BaseModel):
    number: int
    real: float = 1.0
    words: list[str] | None = None
    inner: Inner
    by_name: dict[str, Inner] = {}
    mixed: list[int | str] = []
    either: Annotated[One | Other, Field(discriminator="kind")]
    anything: object = None


class Told(BaseModel):
    maybe: Inner | None


class Nothing(BaseModel):
    pass


EXPECTED = """\
# What it is for.
#
# More of it.
interface a.b

# Light of one kind.
type Colour (red, green)

# What is inside.
type Inner (
  colour: Colour,
  dashed: string
)

# Does it.
method Do(
  number: int,
  real: ?float,
  words: ?[]string,
  inner: Inner,
  by_name: ?[string]Inner,
  mixed: ?[]object,
  either: object,
  anything: ?object
) -> (
  maybe: ?Inner
)

# Does nothing.
method Rest() -> ()

error Failed (
  message: string,
  maybe: ?Inner
)

error Gone (
  message: string
)
"""


def test_an_interface_is_described_from_its_models() -> None:
    methods = [
        MethodShape("Do", "Does it.", Asked, Told),
        MethodShape("Rest", "Does nothing.", Nothing, Nothing),
    ]
    told = describe(
        "a.b", "What it is for.\n\nMore of it.", methods, {"Failed": Told, "Gone": Nothing}
    )
    assert told == EXPECTED


class Whole(BaseModel):
    one: One
    other: Other


@pytest.mark.parametrize("number", [1, 2])
def test_types_stand_in_the_order_of_their_names(number: int) -> None:
    told = describe("a.b", "It.", [MethodShape("Do", "Does.", Whole, Told)] * number, {})
    names = [line.split()[1] for line in told.splitlines() if line.startswith("type")]
    assert names == ["Colour", "Inner", "One", "Other"]
