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
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

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
    missing: Annotated[tuple[MissingPart, ...], Field(max_length=_MAX_MISSING)] = ()
    """What the guest has set, or may have, and the state does not tell."""
    rings: Annotated[tuple[RingBase, ...], Field(max_length=_MAX_RINGS)] = ()
    """Where its queues stood, as far as was known."""

    @model_validator(mode="after")
    def _check_rings(self) -> Self:
        seen: set[int] = set()
        for at, each in enumerate(self.rings):
            if each.queue in seen:
                where = ("rings", at, "queue")
                raise invalid((where, "duplicate", f"queue {each.queue} is there before"))
            seen.add(each.queue)
        return self

    @property
    def bases(self) -> Mapping[int, int]:
        """The same as `rings`, by queue."""
        return {each.queue: each.base for each in self.rings}

    @property
    def lacks(self) -> tuple[Missing, ...]:
        """The same as `missing`, as formats have it."""
        return tuple(Missing(each.part, each.why) for each in self.missing)


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
    document = _read(data)
    if isinstance(document, DeviceState):
        return document
    raise FormatError(f"expected a device state, got one that is wrong: {summary(document)}")


def found_in(data: bytes) -> Found:
    """What a document tells of a device, or what is wrong with its state.

    Raises:
        FormatError: it is no document, or one of another version.
    """
    document = _read(data)
    if not isinstance(document, DeviceState):
        return Found("", None, tuple(document))
    if document.state is None:
        absent = Problem("state", "absent", "the back end that wrote it knew of no guest")
        return Found("", None, (absent,), document.lacks, about=about(document))
    notes = unmet_requirements(document.state.features)
    return Found("", document.state, (), document.lacks, notes, about(document))


def about(document: DeviceState) -> tuple[tuple[str, str], ...]:
    """What people want to know of a document beside its state."""
    writer = document.writer
    told = f"vdpad-vhost-user {writer.vdpad}, back end {writer.back_end}, device {writer.device}"
    rings = ", ".join(f"{queue} at {base}" for queue, base in document.bases.items())
    return (("written by", told), ("rings", rings or "not told"))


def _read(data: bytes) -> DeviceState | list[Problem]:
    if len(data) > MAX_SIZE:
        raise FormatError(f"expected a device state of at most {MAX_SIZE} bytes, got more")
    _check_json(data)
    try:
        return DeviceState.model_validate_json(data)
    except ValidationError as error:
        return problems_of(error)


def _check_json(data: bytes) -> None:
    """Refuses what is no document of this version."""
    try:
        value = strict_json.loads(data, _MOST)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise FormatError(f"expected a JSON object whose format is {FORMAT!r}, got another")
        refuse_many_names(value, value.get("state"))
    except (strict_json.NotJson, TooManyNames) as error:
        raise FormatError(str(error)) from error
    version = value.get("version")
    if type(version) is int and version > VERSION:
        raise FormatError(
            f"expected a device state of version {VERSION}, got version {version}, which a later "
            "vdpad wrote; update vdpad here, or move the guest from a back end of this version"
        )
