"""The whole way: a state is planned, encoded and replayed, and the device then holds that state."""

import json
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import run
from tests.support.devices import running, send
from tests.support.states import MAX_KEY, MAX_PAIRS, feature_supersets, net_state, net_states
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig
from vdpad.queues.software.misbehaviour import Misbehaviour, Order
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.restore.program import largest_command
from vdpad.restore.replay import Outcome
from vdpad.state.model import NetState
from vdpad.virtio.config import HashType, NetConfig, TunnelType
from vdpad.virtio.features import PROVIDED_BY_VMM, TRANSPORT, Feature
from vdpad.virtio.framing import is_legacy

_TABLE_SIZE = 64
"""How many addresses each half of the software device's MAC table takes."""

_NOT_SERVED = (frozenset(Feature) - ALL_FEATURES).intersection(TRANSPORT)


@st.composite
def _devices(draw: st.DrawFn, state: NetState) -> SoftwareConfig:
    """Devices that the state is compatible with."""
    needed = state.features - _NOT_SERVED
    left_to_others = draw(st.frozensets(st.sampled_from(sorted(PROVIDED_BY_VMM))))
    without_vmm = needed - left_to_others - set(TRANSPORT)
    features = draw(feature_supersets(without_vmm)) - _NOT_SERVED
    if draw(st.booleans()):
        features |= {Feature.RING_EVENT_IDX}
    return SoftwareConfig(
        features=features,
        net=NetConfig(
            mac=bytes.fromhex("525400000001"),
            max_virtqueue_pairs=MAX_PAIRS,
            rss_max_key_size=MAX_KEY,
            rss_max_indirection_table_length=128,
            supported_hash_types=frozenset(HashType),
            supported_tunnel_types=frozenset(TunnelType),
        ),
        ring_size=draw(st.sampled_from([4 if is_legacy(features) else 2, 4, 8, 64, 256])),
        start_index=draw(st.integers(0, 65535)),
        misbehaviour=Misbehaviour(
            order=draw(st.sampled_from(Order)), interrupts=draw(st.booleans())
        ),
    )


async def _restore(state: NetState, configured: SoftwareConfig) -> tuple[Plan, NetState]:
    """Restores a state on a new device; the plan, and what the device then holds."""
    async with running(configured) as device:
        made = plan(
            state,
            Capabilities(
                features=configured.features,
                largest_command=largest_command(device.geometry),
                max_queue_pairs=configured.net.max_virtqueue_pairs,
                rss_max_key_size=configured.net.rss_max_key_size,
                rss_max_indirection_table_length=configured.net.rss_max_indirection_table_length,
                supported_hash_types=configured.net.supported_hash_types,
                supported_tunnel_types=configured.net.supported_tunnel_types,
            ),
        )
        assert isinstance(made, Plan), made
        sent = await send(device, made.commands)
        assert sent.replayed.outcome is Outcome.RESTORED, sent.replayed
        assert sent.applied == set(range(len(made.commands)))
        held = NetState.model_validate_json(json.dumps(device.net.settings()))
    return made, held


def _assert_holds(held: NetState, state: NetState, made: Plan) -> None:
    """Every part that the state has, the device has too."""
    _assert_filter_holds(held, state, made)
    for part in ("mac", "vlans", "rss", "hash_report", "guest_offloads"):
        wanted = getattr(state, part)
        assert wanted is None or getattr(held, part) == wanted, part
    if state.queue_pairs is not None and Feature.MQ in held.features:
        assert held.queue_pairs == state.queue_pairs
    _assert_coalescing_holds(held, state)


def _assert_filter_holds(held: NetState, state: NetState, made: Plan) -> None:
    wanted: Mapping[str, bool] = state.rx.model_dump(exclude_unset=True) if state.rx else {}
    has: Mapping[str, bool] = held.rx.model_dump(exclude_unset=True) if held.rx else {}
    opened = {sentence.split(": ")[1].split(" ")[0] for sentence in made.widened}
    for mode, on in wanted.items():
        # One that the device has not is off, and so was it in the state.
        assert has.get(mode, False) is (on or mode in opened), mode
    assert all(has[mode] for mode in opened)
    _assert_mac_table_holds(held, state, has)


def _assert_mac_table_holds(held: NetState, state: NetState, has: Mapping[str, bool]) -> None:
    if state.mac_table is None:
        return
    assert held.mac_table is not None
    room = _TABLE_SIZE
    for half, opener in (("unicast", "alluni"), ("multicast", "allmulti")):
        wanted = set(getattr(state.mac_table, half))
        overflowed = getattr(held.mac_table, f"{half}_overflow")
        assert overflowed == (len(wanted) > room)
        room -= 0 if overflowed else len(wanted)
        assert overflowed or set(getattr(held.mac_table, half)) == wanted
        if getattr(state.mac_table, f"{half}_overflow"):
            assert has.get(opener) or has.get("promisc")


def _assert_coalescing_holds(held: NetState, state: NetState) -> None:
    if state.coalescing is None:
        return
    for part in ("rx", "tx", "queues"):
        wanted = getattr(state.coalescing, part)
        assert not wanted or getattr(held.coalescing, part) == wanted, part


@settings(max_examples=2 * settings().max_examples)
@given(st.data())
def test_a_restored_device_holds_the_state(data: st.DataObject) -> None:
    state = data.draw(net_states())
    configured = data.draw(_devices(state))
    made, held = run(_restore(state, configured))
    _assert_holds(held, state, made)


def test_the_api_s_sample_state_is_held_by_a_default_device() -> None:
    made, held = run(_restore(net_state(), SoftwareConfig()))
    _assert_holds(held, net_state(), made)
    assert held.model_copy(update={"features": net_state().features}) == net_state()


def test_what_a_device_holds_can_be_restored_on_another() -> None:
    _, held = run(_restore(net_state(), SoftwareConfig()))
    made, again = run(_restore(held, SoftwareConfig(ring_size=256, start_index=65500)))
    _assert_holds(again, held, made)
    assert again == held
