"""The interface of what a software device does with its guest's packets, from a start to a reset.

It stands before a loop (looping.py) and a TAP interface (tapping.py). All is called on the device's
thread (worker.py).
"""

from collections.abc import Mapping
from typing import Protocol

from vdpad.queues.software.data_queue import DataQueue
from vdpad.queues.software.worker import Worker
from vdpad.virtio.features import FeatureSet


class Traffic(Protocol):
    """The packets of one start."""

    @property
    def packets(self) -> int:
        """How many the guest has received."""

    @property
    def dropped(self) -> int:
        """How many came to nothing: received by no buffer of the guest's, or sent to nowhere."""

    @property
    def held(self) -> int:
        """How many it has taken and given to nobody yet: at the reset they come to nothing."""

    @property
    def link_is_up(self) -> bool:
        """Whether there is anybody at the other end; once it is not, it is not until the reset."""

    def serve(self) -> bool:
        """One round over the queues that are enabled; whether there is more to do at once.

        Raises:
            BadChain: the driver's rings make no sense.
        """

    def end(self) -> None:
        """Watches nothing any more."""


class BeginTraffic(Protocol):
    """Begins it, with no queue enabled."""

    def __call__(
        self, queues: Mapping[int, DataQueue], features: FeatureSet, worker: Worker
    ) -> Traffic:
        """
        Args:
            queues: by their index; receive queues have even ones. They are enabled later.
            features: what the driver took.
            worker: of the device, whose thread this is.
        """
