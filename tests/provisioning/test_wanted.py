"""What is wanted of a device, by the source's device, by its guest's state, or by both."""

from hypothesis import given
from hypothesis import strategies as st

from tests.provisioning import made
from tests.support.states import bare_state, net_state, net_states
from vdpad.host.vdpa import VdpaConfig, WantedDevice
from vdpad.provisioning.listing import ListedConfig, ListedDevice
from vdpad.provisioning.wanted import NEEDED, Original, state_problems, wanted_like
from vdpad.state.model import NetState
from vdpad.virtio.features import PROVIDED_BY_VMM, TRANSPORT, Feature, FeatureSet
from vdpad.virtio.mac import format_mac

EVERY_FEATURE = frozenset(range(64))
MAC = bytes.fromhex("525400123456")


def _listed(config: VdpaConfig) -> ListedDevice:
    assert config.features is not None
    fields = ListedConfig(
        mac=config.mac, max_virtqueue_pairs=config.max_virtqueue_pairs, mtu=config.mtu
    )
    return ListedDevice(name="vdpa0", features=config.features, config=fields)


# --- a device ---


@given(made.configs(), st.frozensets(st.integers(0, 63)))
def test_a_device_is_wanted_as_it_is(config: VdpaConfig, offered: FeatureSet) -> None:
    """Whatever the management device offers, as neither less nor more would be the same."""
    original = Original(_listed(config), None)
    assert wanted_like(original, offered) == made.wanted(config)


@given(made.configs(), net_states())
def test_beside_a_device_the_state_says_nothing_of_what_is_wanted(
    config: VdpaConfig, state: NetState
) -> None:
    original = Original(_listed(config), state)
    assert wanted_like(original, EVERY_FEATURE) == made.wanted(config)


# --- a state ---


def test_a_state_s_features_are_wanted_and_those_without_which_there_is_no_device() -> None:
    state = bare_state(["CSUM", "MAC", "CTRL_VQ", "CTRL_MAC_ADDR"], mac=format_mac(MAC))
    assert wanted_like(Original(None, state), EVERY_FEATURE) == WantedDevice(
        state.features | NEEDED, MAC, None, None
    )


def test_what_a_vmm_does_by_itself_is_wanted_only_where_it_can_be_had() -> None:
    features = ["CSUM", "MAC", "MTU", "STATUS", "CTRL_VQ", "CTRL_MAC_ADDR", "RING_PACKED"]
    state = bare_state(features, mac=format_mac(MAC))
    wanted = wanted_like(Original(None, state), frozenset({Feature.CSUM, Feature.STATUS}))
    kept = state.features & {Feature.CSUM, Feature.STATUS, Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR}
    assert wanted == WantedDevice(kept | NEEDED, None, None, None)


@given(net_states(), st.frozensets(st.integers(0, 63)))
def test_nothing_of_a_state_is_lost_that_a_vmm_cannot_do(
    state: NetState, offered: FeatureSet
) -> None:
    wanted = wanted_like(Original(None, state), offered).features
    assert state.features - wanted <= PROVIDED_BY_VMM | set(TRANSPORT)
    assert wanted <= state.features | NEEDED
    assert wanted >= state.features & offered


# --- what of a state such a device would not take ---


def _paths(state: NetState, wanted: WantedDevice) -> set[str]:
    return {each.path for each in state_problems(state, wanted)}


@given(net_states(), st.frozensets(st.integers(0, 127)))
def test_a_device_wanted_for_a_state_takes_its_features(
    state: NetState, offered: FeatureSet
) -> None:
    wanted = wanted_like(Original(None, state), offered)
    assert "state.features" not in _paths(state, wanted)


def test_a_state_that_fits() -> None:
    state = net_state()
    assert _paths(state, WantedDevice(state.features, MAC, 4, None)) == set()


def test_a_state_of_another_device_is_told_by_path() -> None:
    features = net_state().features - {Feature.CTRL_VLAN}
    paths = _paths(net_state(), WantedDevice(features, MAC, 2, None))
    assert paths >= {
        *("state.features", "state.vlans", "state.queue_pairs", "state.rss.max_tx_queues")
    }


def test_pairs_that_are_not_known_are_no_problem_of_the_state_s() -> None:
    state = net_state()
    assert _paths(state, wanted_like(Original(None, state), EVERY_FEATURE)) == set()
