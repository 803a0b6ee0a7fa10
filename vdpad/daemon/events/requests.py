"""Requests that were not done."""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class RequestRefused(Event):
    """A request that would have done something was answered with an error."""

    NAME = "refused"
    MESSAGE_ID = "8d29538a1a734be7b4d3da6d57f59f87"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    method: str
    error: str
    """By the API's name for it."""
    reason: str
    problem: tuple[str, ...] = ()
    """What the device cannot take."""
    migration: str = ""
    target: str = ""
    device: str = ""

    def sentence(self) -> str:
        of_what = self.migration or self.device
        return f"{of_what and f'{of_what}: '}{self.method} refused ({self.error}): {self.reason}"


@dataclass(frozen=True, slots=True)
class NotAllowed(Event):
    """Someone spoke who may not."""

    NAME = "not-allowed"
    MESSAGE_ID = "92a85b1b01ef4b7a97efaef281cc9ec0"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    method: str
    reason: str
    migration: str = ""

    def sentence(self) -> str:
        return f"{self.method} refused: {self.reason}"


@dataclass(frozen=True, slots=True)
class InternalError(Event):
    """The daemon itself failed in a request."""

    NAME = "internal-error"
    MESSAGE_ID = "c27e4da9817e429889f2f657afcb7fbd"
    LEVEL = logging.CRITICAL
    CLIENTS_CHOICE = True
    pid: int
    exc_info: BaseException

    def sentence(self) -> str:
        return f"vdpad failed in a request of process {self.pid}; VDPAD_EXCEPTION says where"
