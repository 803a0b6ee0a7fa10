"""Results that more than one API gives."""

from vdpad.api.results import CheckResult
from vdpad.restore.capabilities import Capabilities
from vdpad.state.model import NetState
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry

_GEOMETRY = SplitGeometry(
    size=8,
    memory=Region(0, 65536),
    descriptors=0,
    available=4096,
    used=8192,
    buffers=Region(16384, 32768),
)
_FEATURES = frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.CTRL_RX})


def checked(state: NetState) -> CheckResult:
    capabilities = Capabilities(features=_FEATURES, largest_command=1024)
    return CheckResult.of(state, capabilities, _GEOMETRY, event_idx=False)


def test_a_state_that_fits_is_told_with_all_that_would_be_sent() -> None:
    state = NetState(version=1, features=_FEATURES, vlans=(7, 8, 9))
    result = checked(state)
    assert result.compatible
    assert [(each.command, each.count) for each in result.plan] == [("VLAN_ADD", 3)]
    assert result.commands == 3
    assert result.doorbells >= 1


def test_one_that_does_not_is_told_with_all_reasons_and_no_plan() -> None:
    features = _FEATURES | {Feature.MQ, Feature.CTRL_MAC_ADDR}
    state = NetState(version=1, features=features, queue_pairs=4, mac=bytes.fromhex("525400000001"))
    result = checked(state)
    assert not result.compatible
    assert {each.path for each in result.problems} >= {"queue_pairs", "mac"}
    assert (result.commands, result.plan) == (0, ())
