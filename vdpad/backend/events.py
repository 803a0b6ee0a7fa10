"""What a back end tells of its device."""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class DeviceFailed(Event):
    """The guest was told that its device needs a reset."""

    NAME = "device-failed"
    MESSAGE_ID = "71a348617c204bd2a7fba065b63eeb0e"
    LEVEL = logging.ERROR
    CLIENTS_CHOICE = True
    device: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device} serves its guest no more commands until it is reset: {self.reason}"


@dataclass(frozen=True, slots=True)
class AddressNotPutBack(Event):
    """The device did not take its own address at the back end's end, and may have a guest's."""

    NAME = "address-not-put-back"
    MESSAGE_ID = "c192e011e983442da95abca2ceb5bf0a"
    LEVEL = logging.WARNING
    device: str
    mac: str
    reason: str

    def sentence(self) -> str:
        return (
            f"{self.device}: the device may have its last guest's address, its own is {self.mac}: "
            f"{self.reason}"
        )


@dataclass(frozen=True, slots=True)
class GuestRestored(Event):
    """A guest goes on, and the device was given all that it had set."""

    NAME = "guest-restored"
    MESSAGE_ID = "c0efd23acc4b49d6b7266df1826741e1"
    device: str
    commands: int
    duration_us: int

    def sentence(self) -> str:
        return (
            f"{self.device} has all that its guest had set, by {self.commands} commands in "
            f"{self.duration_us} µs"
        )


@dataclass(frozen=True, slots=True)
class LoggingBegan(Event):
    """The front end tracks which of the guest's memory is written, as for a migration."""

    NAME = "logging-began"
    MESSAGE_ID = "fe0f94ea398149f2afb2b8a61baf1a8d"
    CLIENTS_CHOICE = True
    device: str
    way: str

    def sentence(self) -> str:
        return f"{self.device}: the guest's memory is logged from now on ({self.way})"


@dataclass(frozen=True, slots=True)
class LoggingEnded(Event):
    """The front end tracks the guest's memory no more."""

    NAME = "logging-ended"
    MESSAGE_ID = "8d2211e80d7041328e20ef3cc9074373"
    CLIENTS_CHOICE = True
    device: str
    way: str
    pages: int

    def sentence(self) -> str:
        return (
            f"{self.device}: the guest's memory is logged no more; {self.pages} pages were marked "
            f"({self.way})"
        )


@dataclass(frozen=True, slots=True)
class StateSaved(Event):
    """What a guest has set went out by its VMM's stream."""

    NAME = "state-saved"
    MESSAGE_ID = "986998d2b1594f9c9284563a0eff1add"
    CLIENTS_CHOICE = True
    device: str
    bytes: int

    def sentence(self) -> str:
        return f"{self.device}: what its guest had set went to its VMM's stream, {self.bytes} bytes"


@dataclass(frozen=True, slots=True)
class StateLoaded(Event):
    """What a guest had set elsewhere came in, and is given to the device when the guest goes on."""

    NAME = "state-loaded"
    MESSAGE_ID = "4bb836c2d07043a6a01d1943f6267144"
    CLIENTS_CHOICE = True
    device: str
    rehearsed: bool
    commands: int
    duration_us: int
    """From the rehearsal's first step to the device's reset; 0 where there was none."""

    def sentence(self) -> str:
        tried = "it was not tried"
        if self.rehearsed:
            tried = f"the device took {self.commands} commands in a trial of {self.duration_us} µs"
        return f"{self.device}: what a guest had set elsewhere has come; {tried}"


@dataclass(frozen=True, slots=True)
class AnnouncementAsked(Event):
    """A guest that has moved was asked to tell the network where it is now."""

    NAME = "announcement-asked"
    MESSAGE_ID = "29a0a579025e4387b2ed4a9622e99563"
    CLIENTS_CHOICE = True
    device: str

    def sentence(self) -> str:
        return f"{self.device}: its guest, which has moved, was asked to announce itself"


@dataclass(frozen=True, slots=True)
class GuestAnnounced(Event):
    """The device has told the network where its guest is, which does not do so itself."""

    NAME = "guest-announced"
    MESSAGE_ID = "904da78bffd343daaf182c5303cd46af"
    CLIENTS_CHOICE = True
    device: str
    mac: str

    def sentence(self) -> str:
        return f"{self.device}: its device has told the network that {self.mac} is here"


@dataclass(frozen=True, slots=True)
class DeviceSwitched(Event):
    """Another device has taken the place of the one that the back end had."""

    NAME = "device-switched"
    MESSAGE_ID = "7e339b51f9f84425a11433b6c03851ae"
    device: str
    before: str
    after: str
    paused_us: int
    """How long the data queues stood still; 0 where no guest ran."""

    def sentence(self) -> str:
        return (
            f"{self.device} has {self.after} in place of {self.before}; the guest's queues "
            f"stood still for {self.paused_us} µs"
        )


@dataclass(frozen=True, slots=True)
class SwitchFailed(Event):
    """Another device did not take over."""

    NAME = "switch-failed"
    MESSAGE_ID = "70dc3146517d4feeac0c41dbbb1c4730"
    LEVEL = logging.WARNING
    device: str
    reason: str
    """Which says whether the device before goes on."""

    def sentence(self) -> str:
        return f"{self.device} was not switched to another device: {self.reason}"
