"""Chains of every layout, as a device's side of the ring finds them."""

import pytest

from vdpad.conformance.bench import NotApplicable, on_bench
from vdpad.conformance.device_under_test import StillInFlight
from vdpad.conformance.odd_chains import OddChain, Returned
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import BadGeometry

VLAN = VlanAdd(5).encode()


async def sent(
    *chains: OddChain, seconds: float = 5.0, misbehaviour: Misbehaviour | None = None
) -> Returned:
    """What comes back of chains from a device that behaves, unless it is told otherwise."""
    config = SoftwareConfig(misbehaviour=misbehaviour or Misbehaviour())
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
async def test_a_chain_of_any_layout_is_served(chain: OddChain, head: int) -> None:
    returned = await sent(chain)
    assert returned.is_whole
    assert not returned.is_late
    assert (returned.heads, returned.elements, returned.acks()) == ((head,), ((head, 1),), [0])
    (answer,) = returned.answers
    assert answer == b"\0" + b"\xff" * (sum(chain.writable) - 1)


async def test_several_go_together() -> None:
    chains = [OddChain((VlanAdd(vid).encode(),)) for vid in (7, 8, 7)]
    returned = await sent(*chains)
    assert returned.heads == (0, 2, 4)
    assert returned.acks() == [0, 0, 1]


async def test_what_comes_back_in_another_order_is_told_so() -> None:
    chains = [OddChain((VlanAdd(vid).encode(),)) for vid in (7, 8)]
    returned = await sent(*chains, misbehaviour=Misbehaviour(order=Order.REVERSED))
    assert returned.elements == ((2, 1), (0, 1))
    assert returned.acks() == [0, 0]


async def test_what_never_comes_back() -> None:
    silent = Misbehaviour(faults={1: Fault.SILENCE})
    returned = await sent(OddChain((VLAN,)), OddChain((VLAN,)), seconds=0.2, misbehaviour=silent)
    assert (returned.is_late, returned.is_whole, returned.moved) == (True, False, 1)
    assert returned.acks() == [0, None]


async def test_a_ring_with_chains_in_flight_takes_no_others() -> None:
    device = SoftwareUnderTest("sim0", SoftwareConfig())
    async with on_bench(device, 5.0) as bench:
        await bench.reset()
        await bench.exchanged(OddChain((VLAN,), writable=()), seconds=0.05)
        with pytest.raises(StillInFlight):
            await bench.exchanged(OddChain((VLAN,)))
        await bench.reset()
        assert (await bench.exchanged(OddChain((VLAN,)))).acks() == [0]


async def test_an_interrupt_that_never_comes_is_waited_for_until_the_time_is_up() -> None:
    for interrupts in (True, False):
        config = SoftwareConfig(misbehaviour=Misbehaviour(interrupts=interrupts))
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
async def test_what_the_ring_does_not_take(chains: list[OddChain]) -> None:
    with pytest.raises(BadGeometry):
        await sent(*chains)


async def test_a_packed_ring_is_not_asked() -> None:
    config = SoftwareConfig(features=SoftwareConfig().features | {Feature.RING_PACKED})
    async with on_bench(SoftwareUnderTest("sim0", config), 5.0) as bench:
        await bench.reset()
        with pytest.raises(NotApplicable, match="packed"):
            await bench.exchanged(OddChain((VLAN,)))
