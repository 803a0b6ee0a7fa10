"""Software devices, each wrong in one way that no setting has, for cases that must find it."""

import struct
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from vdpad.conformance import software
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.queues.software.device import CarriedOut, SoftwareConfig, SoftwareDevice
from vdpad.queues.software.net import NetDevice
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.device_side import Chain

_VALUES = struct.Struct("<II")
_VQ_SET = b"\6\2"


class _Net(NetDevice):
    """One whose acks are changed."""

    def command(self, readable: bytes) -> int:
        return self.changed(readable, super().command(readable))

    def changed(self, readable: bytes, ack: int) -> int:
        raise NotImplementedError


class TakesAll(_Net):
    """Acknowledges whatever it does."""

    def changed(self, readable: bytes, ack: int) -> int:
        return ACK_OK


class RefusesAll(_Net):
    """Refuses whatever it does."""

    def changed(self, readable: bytes, ack: int) -> int:
        return ACK_ERR


class RefusesReserved(_Net):
    """Refuses a single queue's coalescing where reserved is not zero."""

    def changed(self, readable: bytes, ack: int) -> int:
        return ACK_ERR if readable[:2] == _VQ_SET and any(readable[4:6]) else ack


class KeepsAll(NetDevice):
    """Forgets nothing at a reset."""

    def reset(self) -> None:
        if not hasattr(self, "_now"):
            super().reset()


class TellsWrong(NetDevice):
    """Reads a queue's coalescing back, always the same."""

    def _queue_coalescing_result(self, readable: bytes) -> bytes:
        return _VALUES.pack(7, 7)


class CarriesOver(_Net):
    """Linux's vdpa_sim_net: an unknown class is answered as the command before it was."""

    _before = ACK_ERR

    def reset(self) -> None:
        super().reset()
        self._before = ACK_ERR

    def changed(self, readable: bytes, ack: int) -> int:
        if readable[:1] != b"\xff":
            self._before = ack
        return self._before


class Fussy(SoftwareDevice):
    """Takes nothing but a descriptor for the command and one for the ack."""

    def _carry_out(self, chain: Chain) -> CarriedOut | None:
        if chain.descriptors != 2 or chain.room != 1:
            self._ring.answer(chain, bytes([ACK_ERR]))
            return CarriedOut(chain, None)
        return super()._carry_out(chain)


class Startled(SoftwareDevice):
    """Falls silent at a doorbell with nothing behind it."""

    _heard = 0

    def _take(self) -> list[Chain]:
        chains = super()._take()
        self._silent |= self._heard != self.doorbells_heard and not chains
        self._heard = self.doorbells_heard
        return chains


class Wedged(SoftwareDevice):
    """Falls silent for good at a chain that it cannot serve, whatever resets it."""

    _for_good: ClassVar[bool] = False

    def _take(self) -> list[Chain]:
        chains = super()._take()
        Wedged._for_good |= self._silent
        self._silent = Wedged._for_good
        return chains


def with_net(
    monkeypatch: pytest.MonkeyPatch, net: type[NetDevice], config: SoftwareConfig
) -> SoftwareUnderTest:
    """A device with these settings, which it has for all of its lives."""
    settings = net(config.features, config.net)

    def make(config: SoftwareConfig) -> SoftwareDevice:
        device = SoftwareDevice(config)
        settings.reset()
        device.net = settings
        return device

    return _made(monkeypatch, make, config)


def of_class(
    monkeypatch: pytest.MonkeyPatch, device: type[SoftwareDevice], config: SoftwareConfig
) -> SoftwareUnderTest:
    """A device of another class."""
    return _made(monkeypatch, device, config)


def every_second_life(
    monkeypatch: pytest.MonkeyPatch, net: type[NetDevice], config: SoftwareConfig
) -> SoftwareUnderTest:
    """A device that is wrong so behind every second reset."""
    lives = 0

    def make(config: SoftwareConfig) -> SoftwareDevice:
        nonlocal lives
        lives += 1
        device = SoftwareDevice(config)
        if lives % 2 == 0:
            device.net = net(config.features, config.net)
        return device

    return _made(monkeypatch, make, config)


def _made(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[SoftwareConfig], Any],
    config: SoftwareConfig,
) -> SoftwareUnderTest:
    monkeypatch.setattr(software, "SoftwareDevice", make)
    return SoftwareUnderTest("sim0", config)
