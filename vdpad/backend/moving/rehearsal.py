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

import struct
import time
from collections.abc import Set
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from vdpad.backend.driving import check_size, negotiate, set_vring
from vdpad.backend.offer import Offer
from vdpad.backend.owned_device import OwnedDevice
from vdpad.backend.restoring import cannot_take, restore
from vdpad.queues.shadowed_device import ShadowedDevice, Vring
from vdpad.queues.vhost_vdpa.memory import LARGEST_RING, SharedMemory, ring_room
from vdpad.restore.plan import Incompatible, plan
from vdpad.restore.report import Report
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.features import FEATURES, TRANSPORT, Feature, FeatureSet
from vdpad.virtio.rings import align_up
from vdpad.virtio.split_ring import lay_out

# Behind the memory of any guest that has little, and away from where interrupts are written
# (0xfee00000).
_LEAST_IOVA = 1 << 32
_ALIGNMENT = 1 << 21

# Where a ring of ours begins if the guest's does not begin at 0, which some drivers cannot do.
_GOES_ON_AT = 1

_INDEX = struct.Struct("<H")
_INDEX_AT = 2  # of either ring's index, behind its flags


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
    owned: OwnedDevice,
    *,
    name: str,
    behind: int,
    start: Start | None = None,
) -> Rehearsed:
    """Tries a state on a device that is stopped, and so it is afterwards, on cancellation too.

    Args:
        state: one that `check` has passed.
        owned: the device.
        name: of the back end, for the report.
        behind: a device address behind all memory that is mapped.
        start: the guest's rings, where they are known: whether the device takes such is tried too.

    Raises:
        NotRestored: the device does not take it; with the report, where there is one.
        VdpadError: the device does not come up, or not with such rings.
    """
    began = time.perf_counter_ns()
    device, steps, offer = owned.device, owned.steps, owned.offer
    if state.mac is not None:
        owned.addresses.gives(state.mac)
    trial = _Trial(device, max(_LEAST_IOVA, align_up(behind, _ALIGNMENT)), start)
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

    def __init__(self, device: ShadowedDevice, iova: int, start: Start | None) -> None:
        self._device = device
        self._region = ring_room(iova)
        vrings = () if start is None else start.vrings
        self._sizes = {each.index: each.addresses.size for each in vrings}
        self._base = _GOES_ON_AT if start is not None and not start.is_fresh else 0
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
            self._set_vring(index, memory)
        device.start()
        return negotiated

    def _set_vring(self, index: int, memory: SharedMemory) -> None:
        largest = self._device.largest_ring(index)
        size = self._sizes.get(index, largest)
        check_size(self._device, index, size)
        geometry = lay_out(min(size, LARGEST_RING), self._region)
        for part in ("available", "used"):
            # Nothing is available, and nothing is to be returned.
            _INDEX.pack_into(geometry.views(memory.view)[part], _INDEX_AT, self._base)
        set_vring(self._device, index, Vring(geometry.addresses, self._base))

    def enable(self, queues: Set[int]) -> None:
        """Lets the device work on these, which have nothing to be worked on."""
        for queue in sorted(queues):
            self._device.enable(queue)

    def end(self) -> None:
        """The device as it was, whatever has come of it."""
        self._undo.close()
