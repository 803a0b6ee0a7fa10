"""What a format told about a device: the same for every format.

A format says what it found, and never makes up the rest: a part that it cannot carry is `missing`,
one that it carries in another way than the state would have it gets a note, and settings that are
no valid state are told as problems and give no state at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vdpad.errors import VdpadError
from vdpad.state.model import NetState
from vdpad.state.problems import Problem, problems_of
from vdpad.virtio.features import unmet_requirements

__all__ = ["FormatError", "Found", "Missing"]


class FormatError(VdpadError, ValueError):
    """Bytes that are not of the format: where, what was expected, and what came."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that the guest may have set and that the format does not tell."""

    part: str
    """Its path in a state: "coalescing.rx"."""
    why: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source tells of one virtio-net device."""

    device: str
    """As the source names it, "0000:00:03.0"; empty where the format has no names."""
    state: NetState | None
    """None where there are problems."""
    problems: tuple[Problem, ...] = ()
    """Why what was found is no state, by paths into it."""
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    """Where the state says it in another way than the source did, or the source is not as the
    specification has it, or may have become another since, as sentences."""
    about: tuple[tuple[str, str], ...] = ()
    """What people want to know and no state holds: ("link", "up")."""
    rings: tuple[tuple[int, int], ...] = ()
    """Where its virtqueues stood, each index with the available index that the device takes next,
    as far as the format tells."""


def found_of(
    parts: Mapping[str, Any],
    *,
    device: str = "",
    missing: Iterable[Missing] = (),
    notes: Iterable[str] = (),
    about: Iterable[tuple[str, str]] = (),
) -> Found:
    """What was found, with the state that these parts make, or with all reasons why they make none.

    Args:
        parts: NetState's fields but the version, in their forms in memory, a part of parts as a
            mapping; also by dotted paths, "rx.promisc". The features among them.
        device: as in Found, as are the others.
    """
    try:
        state, problems = NetState.model_validate({"version": 1, **_nested(parts)}), []
    except ValidationError as error:
        state, problems = None, problems_of(error)
    notes = (*notes, *unmet_requirements(parts["features"]))
    return Found(device, state, tuple(problems), tuple(missing), notes, tuple(about))


def _nested(parts: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for path, value in parts.items():
        part, _, below = path.partition(".")
        if below:
            fields.setdefault(part, {})[below] = value
        else:
            fields[part] = value
    return fields
