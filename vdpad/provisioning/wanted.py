"""What a device is to be, so that a guest finds what it had on its source.

Three things may be known of the source. Its device, as `vdpactl devices --json` listed it: then the
new one is to offer the same, neither less nor more, with the same address, MTU and queue pairs. The
guest's state: then what it negotiated must be there; and as a state does not tell what is in config
space, it is enough by itself only where the guest has neither MTU nor MQ nor RSS. Or both: then the
device is to be like the listed one, and must take the state.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vdpad.host.vdpa import WantedDevice, config_space
from vdpad.provisioning.listing import ListedConfig, ListedDevice
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.fitting import device_problems
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.virtio.config import MAX_QUEUE_PAIRS
from vdpad.virtio.features import PROVIDED_BY_VMM, TRANSPORT, Feature, FeatureSet
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import lay_out

NEEDED: FeatureSet = frozenset({Feature.VERSION_1, Feature.ACCESS_PLATFORM})
"""Without these no driver of Linux's lets a device be used over vhost-vdpa."""

# What a VMM may answer for by itself, or translate between guest and device.
_DISPENSABLE = PROVIDED_BY_VMM | frozenset(TRANSPORT)

# Whoever restores a state makes the ring for its commands, so none of a state depends on it here.
_ANY_RING = lay_out(64, Region(0, 1 << 20))


@dataclass(frozen=True, slots=True)
class Original:
    """What is known of a guest's device on its source: one of the two at the least."""

    device: ListedDevice | None
    state: NetState | None


def wanted_like(original: Original, offered: FeatureSet) -> WantedDevice:
    """The device that is wanted, whether or not it can be made.

    Args:
        original: what it is to be like.
        offered: what the management device's devices may offer. Of a state's features it says which
            of those are wanted that a VMM can do without.
    """
    if original.device is not None:
        return _like_device(original.device)
    assert original.state is not None
    return _like_state(original.state, offered)


def _like_device(device: ListedDevice) -> WantedDevice:
    config = device.config or ListedConfig()
    return WantedDevice(
        features=device.features,
        mac=config.mac,
        max_virtqueue_pairs=config.max_virtqueue_pairs,
        mtu=config.mtu,
    )


def _like_state(state: NetState, offered: FeatureSet) -> WantedDevice:
    features = (state.features - _DISPENSABLE) | (state.features & offered) | NEEDED
    mac = state.mac if Feature.MAC in features else None
    return WantedDevice(features, mac, max_virtqueue_pairs=None, mtu=None)


def state_problems(state: NetState, wanted: WantedDevice) -> Iterator[Problem]:
    """What of a state a device as it is wanted would not take; of RSS netlink knows no limits."""
    # Pairs that are not known are a problem of the device's, and told as that.
    space = config_space(wanted.max_virtqueue_pairs or MAX_QUEUE_PAIRS)
    capabilities = Capabilities.of(wanted.features, space, _ANY_RING)
    for each in device_problems(state, capabilities):
        yield replace(each, path=f"state.{each.path}")
