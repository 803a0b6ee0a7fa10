"""Events: what the daemon tells of itself, and the kinds of it.

Whoever does something announces it once, as one of these classes, and knows nobody who listens.
The listeners are the log (announcing.py) and, where they are configured, the metrics.

A kind has a MESSAGE_ID, which never changes: tools filter by it, and systemd/vdpad.catalog explains
it to operators. The fields of a kind become the journal's: `commit_us` is VDPAD_COMMIT_US, and a
tuple is one field that appears several times. None, "" and () are left out.
"""

import logging
from abc import ABC, abstractmethod
from contextvars import ContextVar
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar

CALLER: ContextVar[int | None] = ContextVar("vdpad_caller", default=None)
"""The uid that asked for what is going on, by the kernel's word; a commit's task inherits it."""

UNLOGGED = {"unlogged": True}
"""The metadata of a field that is for other listeners than the log."""


class Event(ABC):
    """Something that an operator may want to know of."""

    __slots__ = ()

    NAME: ClassVar[str]
    """One word for it, as `event` in lines on standard error and VDPAD_EVENT in the journal."""
    MESSAGE_ID: ClassVar[str]
    """128 bits, in hexadecimal digits."""
    LEVEL: ClassVar[int] = logging.INFO
    CLIENTS_CHOICE: ClassVar[bool] = False
    """Whether clients can bring it about at will, so that it must not fill the journal."""

    @property
    def by(self) -> int | None:
        """The uid that brought it about by no request of its own; None where that is not known."""
        return None

    @abstractmethod
    def sentence(self) -> str:
        """What happened, as the journal's MESSAGE has it."""


@cache
def _logged(kind: type[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind) if each.metadata != UNLOGGED)


def fields_of(event: Event) -> dict[str, Any]:
    """What is logged of an event beside its sentence."""
    values = ((name, getattr(event, name)) for name in _logged(type(event)))
    return {name: value for name, value in values if value not in (None, "", ())}
