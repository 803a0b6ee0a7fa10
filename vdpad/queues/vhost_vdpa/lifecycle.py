"""How far a device has been brought: its phase, and the status byte that says so to both sides.

    RESET ──negotiate──▶ NEGOTIATED ──start──▶ RUNNING ──suspend──▶ SUSPENDED
      ▲                                             ◀────resume─────     │
      └──────────────────────── reset, from any of them ─────────────────┘

`Step` is the table of these, and `Lifecycle.taking` the only writer of the phase. A device refuses
by leaving a status bit out, or by FAILED or NEEDS_RESET, and by nothing else, so the status is read
again after each step that may bring it about. One that is refused on its way up, or does not come
to its reset, is FAILED: only a reset may follow.

Source: virtio 1.4, 3.1.1 "Driver Requirements: Device Initialization".
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from vdpad.queues.vhost_vdpa.errors import DeviceRefused, OutOfOrder
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.virtio.device_status import DeviceStatus

# How long a device may take to be reset, in seconds; hardware takes milliseconds.
_MAX_RESET_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.001


class DevicePhase(Enum):
    """How far a device has been brought; FAILED until it is reset."""

    RESET = "reset"
    NEGOTIATED = "negotiated"
    RUNNING = "running"
    SUSPENDED = "suspended"
    FAILED = "failed"


UP = (DevicePhase.NEGOTIATED, DevicePhase.RUNNING, DevicePhase.SUSPENDED)
"""Where it has features, and so queues."""


class Step(Enum):
    """A step from phase to phase: from which, to which, and where one that fails leaves it."""

    RESET = (tuple(DevicePhase), DevicePhase.RESET, DevicePhase.FAILED)
    NEGOTIATE = ((DevicePhase.RESET,), DevicePhase.NEGOTIATED, DevicePhase.FAILED)
    START = ((DevicePhase.NEGOTIATED,), DevicePhase.RUNNING, DevicePhase.FAILED)
    SUSPEND = ((DevicePhase.RUNNING,), DevicePhase.SUSPENDED, DevicePhase.RUNNING)
    RESUME = ((DevicePhase.SUSPENDED,), DevicePhase.RUNNING, DevicePhase.SUSPENDED)


class Lifecycle:
    """The phase and the status of a device that was just opened."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._phase = DevicePhase.RESET

    @property
    def phase(self) -> DevicePhase:
        """The phase that the steps taken so far have led to."""
        return self._phase

    @contextmanager
    def taking(self, step: Step) -> Iterator[None]:
        """Takes a step with what the block does.

        Raises:
            OutOfOrder: it is none from where the device is. The block is not entered.
        """
        before, after, failed = step.value
        self.expect(step.name.lower(), *before)
        self._phase = failed
        yield
        self._phase = after

    def expect(self, what: str, *phases: DevicePhase) -> None:
        """Refuses what may only be done in these.

        Raises:
            OutOfOrder: the device is in none of them.
        """
        if self._phase not in phases:
            expected = " or ".join(each.value for each in phases)
            raise OutOfOrder(
                f"{what}: expected a device that is {expected}, it is {self._phase.value}"
            )

    def status(self) -> DeviceStatus:
        """The status byte, which the device may change by itself (NEEDS_RESET)."""
        return DeviceStatus(self._node.get_status())

    def clear_status(self) -> None:
        """Resets the device, and waits until it says that it is (virtio 1.4, 4.1.4.3.2).

        Raises:
            DeviceRefused: it does not within seconds.
        """
        self._node.set_status(0)
        give_up = time.monotonic() + _MAX_RESET_SECONDS
        while status := self.status():
            if time.monotonic() > give_up:
                raise DeviceRefused(
                    f"expected device status 0 within {_MAX_RESET_SECONDS:.0f} s of a reset, got "
                    f"{status:#04x}; close the device; the kernel's log may say why"
                )
            time.sleep(_LOOK_AGAIN_SECONDS)

    def advance(self, bit: DeviceStatus) -> None:
        """Sets one more status bit.

        Raises:
            DeviceRefused: the device did not agree.
        """
        wanted = self.status() | bit
        self._node.set_status(wanted)
        self.expect_status(wanted, str(bit.name))

    def expect_status(self, wanted: DeviceStatus, after: str) -> None:
        """Reads whether the device is as it should be after something.

        Raises:
            DeviceRefused: it is not.
        """
        status = self.status()
        if status != wanted:
            raise DeviceRefused(
                f"expected device status {wanted:#04x} after {after}, got {status:#04x}; "
                "the device or its driver refused; the kernel's log may say why"
            )
