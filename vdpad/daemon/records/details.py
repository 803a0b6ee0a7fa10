"""The details of an operation: what is fixed when it is prepared.

They are made once (operations/preparing.py) and handed on whole: to the record, to whatever is told
of the operation, and from its record to the next daemon.
"""

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, JsonValue

from vdpad.daemon.records.owners import NOBODY, Owners
from vdpad.restore.replay import Replayed
from vdpad.restore.report import Commands, Report, report
from vdpad.state.problems import invalid
from vdpad.state.strict_model import StrictModel


def _of_a_kind(target: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not isinstance(target.get("kind"), str):
        raise invalid((("kind",), "kind", "expected a word"))
    return target


class Details(StrictModel):
    """What is fixed when an operation is prepared."""

    migration: Annotated[str, Field(min_length=1, max_length=128)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    target: Annotated[dict[str, JsonValue], AfterValidator(_of_a_kind)]
    """As the caller named it."""
    device: Annotated[str, Field(max_length=4096)]
    """The device's name, as events tell it; "" where it is not known."""
    commands: Annotated[int, Field(ge=0)]
    doorbells: Annotated[int, Field(ge=0)]
    widened: tuple[str, ...]
    prepare_us: Annotated[int, Field(ge=0)]
    began: AwareDatetime | None = None
    """When preparing it began, by the wall clock; None where an older vdpad wrote it down."""
    owners: Owners = NOBODY

    @property
    def named(self) -> tuple[str, str, str]:
        """How events begin: the migration, the target's kind, the device's name."""
        return self.migration, str(self.target["kind"]), self.device


def report_of(details: Details, commands: Commands, replayed: Replayed) -> Report:
    """The report of an operation's replay."""
    return report(
        details.migration,
        commands,
        replayed,
        widened=details.widened,
        prepare_us=details.prepare_us,
    )
