"""The vhost-vdpa devices that vdpad keeps."""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class OfDevice(Event):
    """What becomes of a vhost-vdpa device that vdpad has opened."""

    migration: str
    """That it is kept for."""
    device: str
    node: str


@dataclass(frozen=True, slots=True)
class DeviceKept(OfDevice):
    """It is up, and vdpad is its owner."""

    NAME = "device-kept"
    MESSAGE_ID = "a101013de41844f9af1704d5679d433b"

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} is up and kept ({self.node})"


@dataclass(frozen=True, slots=True)
class DeviceReleased(OfDevice):
    """It is the kernel's again, which has reset it."""

    NAME = "device-released"
    MESSAGE_ID = "1546121a297e4a1787b1f6961ad661bc"

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} was given back to the kernel and so reset"


@dataclass(frozen=True, slots=True)
class DeviceLeft(OfDevice):
    """This daemon ends, and systemd's descriptor store has the device."""

    NAME = "device-left"
    MESSAGE_ID = "95c8d54ce5c74c8bb4ef831e838b9615"

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} is left to systemd for the next vdpad"


@dataclass(frozen=True, slots=True)
class DeviceStillKept(OfDevice):
    """An earlier daemon kept it, and it is as that left it."""

    NAME = "device-still-kept"
    MESSAGE_ID = "98522912924c4f08ba7e2ef51be45dbf"

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} is still kept, as an earlier vdpad left it"


@dataclass(frozen=True, slots=True)
class DeviceLost(OfDevice):
    """An earlier daemon kept it, and it cannot be kept on."""

    NAME = "device-lost"
    MESSAGE_ID = "92b842f558cc491787ae19bc12b94be6"
    LEVEL = logging.ERROR
    reason: str

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} is kept no more: {self.reason}"


@dataclass(frozen=True, slots=True)
class DeviceNotReleased(OfDevice):
    """Its driver does not let go of it."""

    NAME = "device-not-released"
    MESSAGE_ID = "a1ce32a65540494b9e3b79dfb4f01659"
    LEVEL = logging.WARNING
    reason: str

    def sentence(self) -> str:
        return f"{self.migration}: {self.device} was not given back: {self.reason}"
