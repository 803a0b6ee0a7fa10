"""A rehearsal: a state is tried on the device before anybody believes that the device takes it.

The device is brought to DRIVER_OK as a start would bring it, with rings of ours in place of the
guest's, which may not be there yet: empty ones. Data queues are enabled only where a command waits
for them (restoring.py). The state is replayed and every ack read, and the device is reset. What it
costs is a start's cost without the guest's memory, and the guest stands still meanwhile, since its
VMM waits; that is told.

Some drivers take a data queue's ring at DRIVER_OK whether it is enabled or not (mlx5_vdpa), so each
has one. All have the same: nothing is ever made available in it, and so nothing is written but
what a device wants to be told of.
"""

import time
from collections.abc import Set
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from vdpad.backend.driving import negotiate
from vdpad.backend.offer import Offer
from vdpad.backend.restoring import cannot_take, restore
from vdpad.backend.steps import Steps
from vdpad.queues.shadowed_device import ShadowedDevice, Vring
from vdpad.queues.vhost_vdpa.memory import LARGEST_RING, SharedMemory, ring_room
from vdpad.restore.plan import Incompatible, plan
from vdpad.restore.report import Report
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.features import FEATURES, TRANSPORT, Feature, FeatureSet
from vdpad.virtio.split_ring import align_up, lay_out

# Behind the memory of any guest that has little, and away from where interrupts are written
# (0xfee00000).
_LEAST_IOVA = 1 << 32
_ALIGNMENT = 1 << 21


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal that the device has passed came to."""

    report: Report
    duration_us: int
    """From the first step to the device's reset."""


def check(state: NetState, offer: Offer) -> None:
    """Holds a state against what the device offers. Touches no device.

    Raises:
        NotRestored: it does not take it; with all problems.
    """
    terms = offer.terms(state.features)
    planned = plan(state, terms.capabilities)
    problems = planned.problems if isinstance(planned, Incompatible) else ()
    # What a VMM may answer for elsewhere it does not answer for where its back end has all queues.
    strays = state.features - offer.features - set(TRANSPORT)
    if strays and not any(each.path == "features" for each in problems):
        told = f"the guest negotiated {FEATURES.sentence(strays)}; the device has not"
        problems = (Problem("features", "missing-feature", told), *problems)
    if problems:
        raise cannot_take(problems)


async def rehearse(
    state: NetState,
    device: ShadowedDevice,
    steps: Steps,
    offer: Offer,
    *,
    name: str,
    behind: int,
) -> Rehearsed:
    """Tries a state on a device that is stopped, and so it is afterwards, on cancellation too.

    Args:
        state: one that `check` has passed.
        device: the device.
        steps: its steps.
        offer: what it offers.
        name: of the back end, for the report.
        behind: a device address behind all memory that is mapped.

    Raises:
        NotRestored: the device does not take it; with the report, where there is one.
        VdpadError: the device does not come up.
    """
    began = time.perf_counter_ns()
    trial = _Trial(device, max(_LEAST_IOVA, align_up(behind, _ALIGNMENT)))
    try:
        features = await steps.take(partial(trial.begin, offer, _negotiable(state, offer)))
        with closing(device.control_queue()) as queue:
            report = await restore(
                state,
                queue,
                device.control_geometry,
                name=name,
                features=features,
                config=offer.net,
                enable=lambda queues: steps.take(partial(trial.enable, queues)),
            )
    finally:
        await to_its_end(steps.take(trial.end))
    return Rehearsed(report, (time.perf_counter_ns() - began) // 1000)


def _negotiable(state: NetState, offer: Offer) -> FeatureSet:
    """The guest's features; of the ring's and the transport's those that are offered here."""
    transport = state.features & frozenset(TRANSPORT)
    return state.features - transport | transport & offer.features | {Feature.VERSION_1}


class _Trial:
    """The device between `begin` and `end`, which are steps of its own."""

    def __init__(self, device: ShadowedDevice, iova: int) -> None:
        self._device = device
        self._region = ring_room(iova)
        self._undo = ExitStack()

    def begin(self, offer: Offer, features: FeatureSet) -> FeatureSet:
        """To DRIVER_OK, with the CVQ alone; the features negotiated with the device."""
        device, region = self._device, self._region
        memory = self._undo.enter_context(SharedMemory(region.size))
        device.map(region, memory.view)
        self._undo.callback(device.unmap, region)
        self._undo.callback(device.reset)
        negotiated = negotiate(device, offer, features)
        for index in range(device.control_queue_index):
            size = min(device.largest_ring(index), LARGEST_RING)
            device.set_vring(index, Vring(lay_out(size, region).addresses))
        device.start()
        return negotiated

    def enable(self, queues: Set[int]) -> None:
        """Lets the device work on these, which have nothing to be worked on."""
        for queue in sorted(queues):
            self._device.enable(queue)

    def end(self) -> None:
        """The device as it was, whatever has come of it."""
        self._undo.close()
