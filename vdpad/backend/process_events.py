"""What a back end's process tells: of its front ends, of the device's starts, of what it keeps.

Their `device` is the back end's name.
"""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class FrontEndAwaited(Event):
    """A VMM may connect: nobody has the device."""

    NAME = "front-end-awaited"
    MESSAGE_ID = "02e037b9cedd4191be8e295a5a916e7c"
    CLIENTS_CHOICE = True
    device: str
    socket: str

    def sentence(self) -> str:
        return f"{self.device}: a VMM may connect to {self.socket}"


@dataclass(frozen=True, slots=True)
class FrontEndCame(Event):
    """A VMM has connected, and has the device to itself."""

    NAME = "front-end-came"
    MESSAGE_ID = "925f97bcb75a44eda4a331af28e6a4f0"
    device: str
    pid: int
    user: int

    def sentence(self) -> str:
        return f"{self.device}: process {self.pid} (uid {self.user}) has the device"


@dataclass(frozen=True, slots=True)
class FrontEndLeft(Event):
    """A VMM's connection has ended, and its device is stopped."""

    NAME = "front-end-left"
    MESSAGE_ID = "1d581af553a64d19ab98ca89c09f6339"
    device: str
    reason: str
    """Why it was cut, or what went wrong at its end; "" where the VMM closed it."""

    def sentence(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.device}: the front end has gone{why}"


@dataclass(frozen=True, slots=True)
class FrontEndRefused(Event):
    """A VMM asked for something that is not served or that the device did not do."""

    NAME = "front-end-refused"
    MESSAGE_ID = "b89835a50b81471782fbfbac5d15aa9b"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    device: str
    request: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device}: {self.request} was not done: {self.reason}"


@dataclass(frozen=True, slots=True)
class DeviceStarted(Event):
    """The guest's driver has the device."""

    NAME = "device-started"
    MESSAGE_ID = "7ba96a01aaea46c0985b5780f504a2bf"
    CLIENTS_CHOICE = True
    device: str
    queues: int
    goes_on: bool
    """Whether the guest goes on after a pause; else its driver begins anew."""

    def sentence(self) -> str:
        how = "goes on" if self.goes_on else "begins"
        return f"{self.device}: a guest {how} on the device, with {self.queues} queues"


@dataclass(frozen=True, slots=True)
class DeviceStopped(Event):
    """The VMM has stopped the device, and what the guest has set is kept."""

    NAME = "device-stopped"
    MESSAGE_ID = "d480bf014e304032b5b7b5ee7d1c9749"
    CLIENTS_CHOICE = True
    device: str

    def sentence(self) -> str:
        return f"{self.device}: the device was stopped"


@dataclass(frozen=True, slots=True)
class SettingsRecalled(Event):
    """What a guest had set before this process began is known."""

    NAME = "settings-recalled"
    MESSAGE_ID = "51a0dea85fbb42bbb35cb38e80e3e924"
    device: str
    directory: str

    def sentence(self) -> str:
        return f"{self.device}: what the guest had set stood in {self.directory}, and is given back"


@dataclass(frozen=True, slots=True)
class SettingsNotKept(Event):
    """What the guest sets will not be known after this process."""

    NAME = "settings-not-kept"
    MESSAGE_ID = "32fc8feab8f541fc88253644a6261858"
    LEVEL = logging.ERROR
    CLIENTS_CHOICE = True
    device: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device}: what the guest has set does not outlive this process: {self.reason}"


@dataclass(frozen=True, slots=True)
class SettingsUnreadable(Event):
    """What an earlier process kept cannot be read; what the guest sets from now on is kept."""

    NAME = "settings-unreadable"
    MESSAGE_ID = "e7c0a6445a6a44b2889be074e42d0b75"
    LEVEL = logging.ERROR
    device: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device}: a guest that goes on lacks what it had set: {self.reason}"


@dataclass(frozen=True, slots=True)
class AddressesUnreadable(Event):
    """What an earlier process kept of the device's own address cannot be read."""

    NAME = "addresses-unreadable"
    MESSAGE_ID = "0de478c94f3e4be5940c5a26e71803ff"
    LEVEL = logging.WARNING
    device: str
    mac: str
    reason: str

    def sentence(self) -> str:
        return (
            f"{self.device}: {self.mac} is taken for the device's own address, and may be its last "
            f"guest's: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class SettingsDropped(Event):
    """What a guest had set was forgotten, as the front end that came is another user's."""

    NAME = "settings-dropped"
    MESSAGE_ID = "f3cb3428c4074372af099613887d70f3"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    device: str
    owner: int
    user: int

    def sentence(self) -> str:
        return (
            f"{self.device}: what the guest of uid {self.owner} had set was dropped, as the front "
            f"end is uid {self.user}'s"
        )


@dataclass(frozen=True, slots=True)
class MonitorAwaited(Event):
    """No guest has the device, and the monitor that is to tell the next one's filter does not."""

    NAME = "monitor-awaited"
    MESSAGE_ID = "48d3ed7881a1402ca88c270815b09b52"
    CLIENTS_CHOICE = True
    device: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device}: QEMU's monitor is looked for until it is there: {self.reason}"


@dataclass(frozen=True, slots=True)
class FilterFollowed(Event):
    """The device lets in what its guest's filter lets in, by the monitor of the VMM."""

    NAME = "filter-followed"
    MESSAGE_ID = "08b2351dc80c4c3ca13a92b8739b9d47"
    CLIENTS_CHOICE = True
    device: str
    card: str
    """As QEMU names it."""
    monitor: str

    def sentence(self) -> str:
        return f"{self.device}: the device has the filter of {self.card}, as {self.monitor} tells"


@dataclass(frozen=True, slots=True)
class FilterUnknown(Event):
    """The device lets in everything, as the filter of its guest is not known."""

    NAME = "filter-unknown"
    MESSAGE_ID = "0560ba9d8c92479ca0cef57e78633791"
    LEVEL = logging.WARNING
    CLIENTS_CHOICE = True
    device: str
    reason: str

    def sentence(self) -> str:
        return f"{self.device}: the device is open wide, whatever its guest's filter: {self.reason}"


@dataclass(frozen=True, slots=True)
class BackEndEnded(Event):
    """The end of a back end that had started; its device was given back."""

    NAME = "back-end-ended"
    MESSAGE_ID = "2110043c1f894adeb04392c35eedb74d"
    device: str

    def sentence(self) -> str:
        return f"{self.device}: the back end has ended"
