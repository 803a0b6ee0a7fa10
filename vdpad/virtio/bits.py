"""Named bits: feature bits, hash types, offloads and tunnel types are all sets of bit numbers.

In memory such a set is a frozenset of int (enum members are ints), on the wire it is a mask, and
for people it is a list of names. A bit that the enum does not know is `bit_N`, as the `vdpa` tool
prints it, so that a newer device's bits survive being read and written again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from vdpad.errors import VdpadError

_UNKNOWN = re.compile(r"bit_(0|[1-9][0-9]{0,2})")

# How much of a name that nobody knows is repeated in a message: it is the sender's text.
_SHOWN = 40


class UnknownName(VdpadError, ValueError):
    """A name that stands for no bit."""


@dataclass(frozen=True)
class BitNames:
    """The names of one kind of bits."""

    kind: str
    """What one of them is called in messages, such as "feature"."""
    members: type[IntEnum]
    """The known bits: member name and bit number."""
    width: int
    """Bits are 0 … width-1."""

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return {int(member): member.name for member in self.members}

    @cached_property
    def _bit_of(self) -> dict[str, int]:
        return {name: bit for bit, name in self._name_of.items()}

    def name(self, bit: int) -> str:
        """The name of one bit."""
        return self._name_of.get(bit) or f"bit_{bit}"

    def names(self, bits: Iterable[int]) -> list[str]:
        """The names of these bits, in the order of their numbers."""
        return [self.name(bit) for bit in sorted(bits)]

    def sentence(self, bits: Iterable[int]) -> str:
        """The names of these bits, for a message."""
        return ", ".join(self.names(bits)) or "none"

    def bit(self, name: str) -> int:
        """The bit of this name.

        Raises:
            UnknownName: neither a known name nor bit_0 … bit_(width-1).
        """
        bit = self._bit_of.get(name)
        if bit is not None:
            return bit
        unknown = _UNKNOWN.fullmatch(name)
        if unknown is None or int(unknown[1]) >= self.width:
            raise UnknownName(
                f"expected the name of a {self.kind} or bit_0 … bit_{self.width - 1}, "
                f"got {name[:_SHOWN]!r}"
            )
        return int(unknown[1])


def bits_of(mask: int) -> frozenset[int]:
    """The numbers of the bits that are set in a mask."""
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def mask_of(bits: Iterable[int]) -> int:
    """The mask in which these bits are set."""
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask
