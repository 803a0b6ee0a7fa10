"""A back end's device state: JSON that travels in a VMM's migration stream, or in a file.

    {"format": "vdpad-device-state", "version": 1, "writer": {…}, "state": {…}, "missing": […],
     "rings": […]}

docs/devicestate.schema.json has all of it, docs/formats.md what it is for. "format" comes first,
which tells it from a state. Whoever reads it takes it for hostile: its size is held against a bound
first, then it is read as strict JSON of a bounded number of values, then held against the model.

A document of a later version is refused, whatever else is in it: what it has beside this one's
parts may be what a guest cannot do without.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from vdpad.state.fields import U16, OrAbsent
from vdpad.state.formats import native
from vdpad.state.found import FormatError, Found, Missing
from vdpad.state.model import NetState
from vdpad.state.names import TooManyNames, refuse_many_names
from vdpad.state.problems import Problem, invalid, problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.features import unmet_requirements
from vdpad.wire import strict_json

FORMAT = "vdpad-device-state"
VERSION = 1

# virtio-net has one virtqueue more than two for each pair, and vhost-user names 256 at most.
_MAX_RINGS = 256

# A recorder names each part of a state once, and each class of commands that it does not know.
_MAX_MISSING = 512

# Of all that is no state. Stops a file or a pipe without an end from filling memory.
_ROOM = 1 << 18

_RAN = (
    "it was captured while its guest ran, and has nothing of what that has set since; to move the "
    "guest, capture once it is stopped"
)

# As far as "format" is looked for, space before it included.
_BEGINNING = 64

MAX_SIZE = native.MAX_SIZE + _ROOM
"""In bytes."""

_MOST = native.MOST._replace(
    values=native.MOST.values + 4 * (_MAX_RINGS + _MAX_MISSING),
    containers=native.MOST.containers + 2 * (_MAX_RINGS + _MAX_MISSING),
    names=native.MOST.names + 4 * (_MAX_RINGS + _MAX_MISSING),
)


class MissingPart(StrictModel):
    """A part that the state does not tell."""

    part: Annotated[str, Field(max_length=200)]
    why: Annotated[str, Field(max_length=4096)]


class RingBase(StrictModel):
    """Where a virtqueue stood."""

    queue: Annotated[int, Field(ge=0, lt=_MAX_RINGS)]
    base: U16
    """The available index that the device takes next."""


def _each_once(rings: tuple[RingBase, ...]) -> tuple[RingBase, ...]:
    seen: set[int] = set()
    for at, each in enumerate(rings):
        if each.queue in seen:
            raise invalid(((at, "queue"), "duplicate", f"queue {each.queue} is there before"))
        seen.add(each.queue)
    return rings


RingBases = Annotated[
    tuple[RingBase, ...], Field(max_length=_MAX_RINGS), AfterValidator(_each_once)
]
"""Of some queues, each once."""

MissingParts = Annotated[tuple[MissingPart, ...], Field(max_length=_MAX_MISSING)]
"""As many as a recorder names."""


class StateWriter(StrictModel):
    """Who wrote it, for people: nothing goes by this."""

    vdpad: Annotated[str, Field(max_length=64)]
    """The version."""
    back_end: Annotated[str, Field(max_length=64)]
    """Its name."""
    device: Annotated[str, Field(max_length=256)]
    """What people call the device: its node, or what kind of software device it is."""


class DeviceState(StrictModel):
    """What a back end knows of its guest while the device is stopped."""

    format: Literal["vdpad-device-state"]
    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    writer: StateWriter
    state: Annotated[NetState | None, OrAbsent()] = None
    """Absent where no guest is known. Its features are those that the guest's driver negotiated."""
    missing: MissingParts = ()
    """What the guest has set, or may have, and the state does not tell."""
    rings: RingBases = ()
    """Where its queues stood, as far as was known."""


class Captured(StrictModel):
    """What a back end answers to `capture` (docs/api.md)."""

    state: NetState | None
    missing: MissingParts
    rings: RingBases
    running: bool


def bases_of(rings: Iterable[RingBase]) -> dict[int, int]:
    """Where queues stood, by index."""
    return {each.queue: each.base for each in rings}


def missing_of(parts: Iterable[MissingPart]) -> tuple[Missing, ...]:
    """Missing parts as formats have them."""
    return tuple(Missing(each.part, each.why) for each in parts)


def encode(
    writer: StateWriter,
    state: NetState | None,
    missing: Iterable[Missing] = (),
    bases: Mapping[int, int] | None = None,
) -> bytes:
    """A document's bytes.

    Args:
        writer: who writes it.
        state: of the guest; None where none is known.
        missing: what it does not tell.
        bases: where queues stand, by index.
    """
    plain: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "writer": writer.model_dump(),
        **({} if state is None else {"state": native.plain(state)}),
        "missing": [{"part": each.part, "why": each.why} for each in missing],
        "rings": [{"queue": queue, "base": base} for queue, base in sorted((bases or {}).items())],
    }
    return json.dumps(plain, separators=(",", ":")).encode()


def decode(data: bytes) -> DeviceState:
    """The document in these bytes.

    Raises:
        FormatError: it is none, of another version, or not as the model has it.
    """
    _check_version(_json(data))
    try:
        return DeviceState.model_validate_json(data)
    except ValidationError as error:
        raise FormatError(
            f"expected a device state, got one that is wrong: {summary(problems_of(error))}"
        ) from error


def found_in(data: bytes) -> Found:
    """What a document tells of a device, or what is wrong with its state.

    Raises:
        FormatError: it is no document, or one of another version.
    """
    _check_version(_json(data))
    try:
        document = DeviceState.model_validate_json(data)
    except ValidationError as error:
        return Found("", None, tuple(problems_of(error)))
    return _found(document, about(document))


def found_in_capture(data: bytes) -> Found:
    """What a capture tells of a device, or what is wrong with its state.

    Raises:
        FormatError: it is no JSON object.
    """
    _json(data)
    try:
        captured = Captured.model_validate_json(data)
    except ValidationError as error:
        return Found("", None, tuple(problems_of(error)))
    guest = "running" if captured.running else "stopped"
    found = _found(captured, (("guest", guest), ("rings", _rings(captured.rings))))
    return replace(found, notes=(*found.notes, _RAN)) if captured.running else found


def about(document: DeviceState) -> tuple[tuple[str, str], ...]:
    """What people want to know of a document beside its state."""
    writer = document.writer
    told = f"vdpad-vhost-user {writer.vdpad}, back end {writer.back_end}, device {writer.device}"
    return (("written by", told), ("rings", _rings(document.rings)))


def begins_one(data: bytes) -> bool:
    """Whether bytes begin as a document does, of whatever version."""
    return FORMAT.encode() in data[:_BEGINNING]


def _rings(rings: Iterable[RingBase]) -> str:
    return ", ".join(f"{each.queue} at {each.base}" for each in rings) or "not told"


def _found(told: DeviceState | Captured, about: tuple[tuple[str, str], ...]) -> Found:
    state, missing = told.state, missing_of(told.missing)
    absent = Problem("state", "absent", "the back end knew of no guest, or no state can say it")
    return Found(
        "",
        state,
        problems=(absent,) if state is None else (),
        missing=missing,
        notes=() if state is None else unmet_requirements(state.features),
        about=about,
        rings=tuple(bases_of(told.rings).items()),
    )


def _json(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_SIZE:
        raise FormatError(f"expected a device state of at most {MAX_SIZE} bytes, got more")
    if not data:
        raise FormatError(
            "expected a device state, got no byte; the log of the back end that was to write it "
            "says why"
        )
    try:
        value = strict_json.loads(data, _MOST)
        if not isinstance(value, dict):
            raise FormatError(f"expected a JSON object, got {type(value).__name__}")
        refuse_many_names(value, value.get("state"))
    except strict_json.NotJson as error:
        raise FormatError(
            f"{error}; it is no device state, or one that was cut: have it written once more"
        ) from error
    except TooManyNames as error:
        raise FormatError(str(error)) from error
    return value


def _check_version(value: dict[str, Any]) -> None:
    """Refuses what is no document of this version."""
    if value.get("format") != FORMAT:
        raise FormatError(f"expected a JSON object whose format is {FORMAT!r}, got another")
    version = value.get("version")
    if type(version) is int and version > VERSION:
        raise FormatError(
            f"expected a device state of version {VERSION}, got version {version}, which a later "
            "vdpad wrote; update vdpad here, or move the guest from a back end of this version"
        )
