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
