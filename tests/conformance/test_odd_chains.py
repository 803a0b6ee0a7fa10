"""Chains of every layout, as a device's side of the ring finds them."""

from typing import Any

import pytest

from vdpad.conformance.bench import on_bench
from vdpad.conformance.device_under_test import StillInFlight
from vdpad.conformance.odd_chains import Returned
from vdpad.conformance.odd_layout import OddChain
from vdpad.conformance.odd_rings import each_told_of
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import BadGeometry

VLAN = VlanAdd(5).encode()
LAYOUTS: dict[str, FeatureSet] = {
    "split": frozenset(),
    "split-in-order": frozenset({Feature.IN_ORDER}),
    "packed": frozenset({Feature.RING_PACKED}),
    "packed-in-order": frozenset({Feature.RING_PACKED, Feature.IN_ORDER}),
}


@pytest.fixture(params=list(LAYOUTS))
def ring(request: pytest.FixtureRequest) -> FeatureSet:
    """Features of a ring of each layout."""
    return LAYOUTS[request.param]


def with_ring(ring: FeatureSet, **more: Any) -> SoftwareConfig:
    """A device with all features, and a ring with these."""
    return SoftwareConfig(features=ALL_FEATURES | ring, **more)


async def sent(
    *chains: OddChain,
    ring: FeatureSet = frozenset(),
    seconds: float = 5.0,
    misbehaviour: Misbehaviour | None = None,
    start: int = 0,
) -> Returned:
    """What comes back of chains from a device that behaves, unless it is told otherwise."""
    config = with_ring(ring, misbehaviour=misbehaviour or Misbehaviour(), start_index=start)
    async with on_bench(SoftwareUnderTest("sim0", config), seconds) as bench:
        await bench.reset()
        return await bench.exchanged(*chains)


@pytest.mark.parametrize(
    ("chain", "head"),
    [
        (OddChain((VLAN,)), 0),
        (OddChain((VLAN[:2], VLAN[2:])), 0),
        (OddChain(tuple(bytes([each]) for each in VLAN)), 0),
        (OddChain((VLAN,), writable=(5,)), 0),
        (OddChain((VLAN,), writable=(1, 2, 3)), 0),
        (OddChain((VLAN[:1], VLAN[1:]), writable=(1, 7), indirect=True), 0),
    ],
)
async def test_a_chain_of_any_layout_is_served(
    chain: OddChain, head: int, ring: FeatureSet
) -> None:
    returned = await sent(chain, ring=ring)
    assert returned.is_whole
    assert not returned.is_late
    assert (returned.heads, returned.elements, returned.acks()) == ((head,), ((head, 1),), [0])
    (answer,) = returned.answers
    assert answer == b"\0" + b"\xff" * (sum(chain.writable) - 1)


async def test_several_go_together(ring: FeatureSet) -> None:
    chains = [OddChain((VlanAdd(vid).encode(),)) for vid in (7, 8, 7)]
    returned = await sent(*chains, ring=ring)
    assert returned.elements == ((0, 1), (2, 1), (4, 1))
    assert returned.heads == (0, 2, 4)
    assert returned.acks() == [0, 0, 1]


@pytest.mark.parametrize("ring", [LAYOUTS["split"], LAYOUTS["packed"]], ids=["split", "packed"])
async def test_what_comes_back_in_another_order_is_told_so(ring: FeatureSet) -> None:
    chains = [OddChain((VlanAdd(vid).encode(),)) for vid in (7, 8)]
    returned = await sent(*chains, ring=ring, misbehaviour=Misbehaviour(order=Order.REVERSED))
    assert returned.elements == ((2, 1), (0, 1))
    assert returned.acks() == [0, 0]


async def test_what_never_comes_back(ring: FeatureSet) -> None:
    silent = Misbehaviour(faults={1: Fault.SILENCE})
    chains = [OddChain((VLAN,))] * 2
    returned = await sent(*chains, ring=ring, seconds=0.2, misbehaviour=silent)
    assert (returned.is_late, returned.is_whole, returned.moved) == (True, False, 1)
    assert returned.acks() == [0, None]


async def test_a_ring_with_chains_in_flight_takes_no_others(ring: FeatureSet) -> None:
    device = SoftwareUnderTest("sim0", with_ring(ring))
    async with on_bench(device, 5.0) as bench:
        await bench.reset()
        await bench.exchanged(OddChain((VLAN,), writable=()), seconds=0.05)
        with pytest.raises(StillInFlight):
            await bench.exchanged(OddChain((VLAN,)))
        await bench.reset()
        assert (await bench.exchanged(OddChain((VLAN,)))).acks() == [0]


async def test_an_interrupt_that_never_comes_is_waited_for_until_the_time_is_up(
    ring: FeatureSet,
) -> None:
    for interrupts in (True, False):
        config = with_ring(ring, misbehaviour=Misbehaviour(interrupts=interrupts))
        async with on_bench(SoftwareUnderTest("sim0", config), 5.0) as bench:
            await bench.reset()
            seconds = None if interrupts else 0.2
            chain = OddChain((VLAN,))
            returned = await bench.exchanged(chain, interrupted=True, seconds=seconds)
        assert returned.is_whole
        assert returned.is_late is not interrupts


@pytest.mark.parametrize(
    "chains", [[OddChain((VLAN,))] * 33, [OddChain((VLAN, bytes(1 << 17)))]], ids=["many", "long"]
)
async def test_what_the_ring_does_not_take(chains: list[OddChain], ring: FeatureSet) -> None:
    with pytest.raises(BadGeometry):
        await sent(*chains, ring=ring)


@pytest.mark.parametrize("start", [0, 1, 58, 63, 64, 121, 127])
@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "no-event-idx"])
async def test_chains_of_all_lengths_go_across_a_packed_ring_s_end(
    start: int, order: Order, event_idx: bool
) -> None:
    """Its device goes on as many descriptors further as each chain had, in whichever order."""
    ring = LAYOUTS["packed"]
    features = ALL_FEATURES | ring
    config = SoftwareConfig(
        features=features if event_idx else features - {Feature.RING_EVENT_IDX},
        misbehaviour=Misbehaviour(order=order),
        start_index=start,
    )
    chains = [
        OddChain((VlanAdd(1).encode(),)),
        OddChain(tuple(bytes([each]) for each in VlanAdd(2).encode()), writable=(1, 3)),
        OddChain((VlanAdd(3).encode(),), writable=(1, 2), indirect=True),
        OddChain((VlanAdd(4).encode()[:2], VlanAdd(4).encode()[2:])),
    ]
    async with on_bench(SoftwareUnderTest("sim0", config), 5.0) as bench:
        await bench.reset()
        for acks in ([0, 0, 0, 0], [1, 1, 1, 1]):
            returned = await bench.exchanged(*chains, interrupted=True)
            assert (returned.heads, returned.moved) == ((0, 2, 8, 9), 4)
            assert (returned.is_whole, returned.is_late) == (True, False)
            assert returned.acks() == acks


async def test_a_packed_ring_whose_device_runs_ahead() -> None:
    ahead = Misbehaviour(faults={1: Fault.RUN_AHEAD})
    chains = [OddChain((VlanAdd(vid).encode(),)) for vid in (7, 8)]
    returned = await sent(*chains, ring=LAYOUTS["packed"], misbehaviour=ahead, start=62)
    assert (returned.moved, returned.is_whole) == (3, True)


@pytest.mark.parametrize("skipped", [0, 1, 2])
async def test_of_a_batch_in_order_only_the_last_one_is_told(skipped: int) -> None:
    """What stands where the others would be told of is of no matter."""
    told = {0: (2 * skipped, 1), **dict.fromkeys(range(1, skipped + 1), (99, 7))}
    rest = {at: (2 * at, 5) for at in range(skipped + 1, 4)}
    found = list(each_told_of(told | rest, (0, 2, 4, 6), 4))
    assert [head for head, _ in found] == [0, 2, 4, 6]
    assert [length for _, length in found] == [1] * (skipped + 1) + [5] * (3 - skipped)
