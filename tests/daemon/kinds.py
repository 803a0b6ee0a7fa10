"""All kinds of events that there are."""

from vdpad.backend import events as backend
from vdpad.backend import process_events
from vdpad.daemon.events import daemon, devices, operations, requests
from vdpad.service.events import kinds
from vdpad.service.events.event import Event

KINDS: list[type[Event]] = [
    each
    for module in (daemon, devices, operations, requests, kinds, backend, process_events)
    for each in vars(module).values()
    if isinstance(each, type) and "MESSAGE_ID" in vars(each)
]
