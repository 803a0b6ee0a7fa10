"""How a software device can be told to misbehave, command by command.

Positions count the commands that the device takes from its ring since it was told, from 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """What goes wrong with one command."""

    ERR = "err"
    """It is refused: ack 1, and nothing is changed."""
    SILENCE = "silence"
    """It is never answered, nor is any that follows."""
    ID_OUT_OF_RANGE = "id-out-of-range"
    """It is returned under an id past the end of the ring."""
    ID_NOT_IN_FLIGHT = "id-not-in-flight"
    """It is returned under the id of a descriptor that heads no chain."""
    ID_TWICE = "id-twice"
    """It is returned under the id that was returned before it."""
    RUN_AHEAD = "run-ahead"
    """The used index goes past all that was ever available."""
    WRONG_LENGTH = "wrong-length"
    """It is returned with a length of 2."""
    STALE_ACK = "stale-ack"
    """It is returned with no ack written."""
    STRANGE_ACK = "strange-ack"
    """Its ack is 7."""


class Order(StrEnum):
    """In which order commands that were available together are returned."""

    AS_SENT = "as-sent"
    REVERSED = "reversed"
    SHUFFLED = "shuffled"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """All of it; the default behaves."""

    faults: Mapping[int, Fault] = field(default_factory=dict)
    """By position."""
    order: Order = Order.AS_SENT
    seconds_a_command: float = 0.0
    """How long each takes."""
    interrupts: bool = True
    """Whether the driver ever hears of what is returned."""
