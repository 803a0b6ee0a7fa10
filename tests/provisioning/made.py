"""Devices as netlink tells of them, made up: strategies for what the kernel can say."""

from hypothesis import strategies as st

from vdpad.host.vdpa import ManagementDevice, VdpaConfig, VdpaDevice, WantedDevice
from vdpad.provisioning.wanted import NEEDED
from vdpad.virtio.config import MAX_QUEUE_PAIRS
from vdpad.virtio.features import Feature, FeatureSet

SIMULATOR = VdpaDevice("sim0", "vdpasim_net", 1, 0, 3, 256, 1)

FEATURES = st.frozensets(st.integers(0, 63)).map(lambda some: some | NEEDED)
MACS = st.binary(min_size=6, max_size=6)
U16 = st.integers(0, 0xFFFF)


@st.composite
def configs(draw: st.DrawFn, features: st.SearchStrategy[FeatureSet] = FEATURES) -> VdpaConfig:
    """What Linux tells of a network device that nobody drives: fields as its features have them."""
    offered = draw(features)
    multiqueue = offered & {Feature.MQ, Feature.RSS}
    # Linux makes devices of several pairs only with MQ.
    most = MAX_QUEUE_PAIRS if Feature.MQ in offered else 1
    return VdpaConfig(
        name="sim0",
        features=offered,
        negotiated=None,
        mac=draw(MACS) if Feature.MAC in offered else None,
        status=draw(U16) if Feature.STATUS in offered else None,
        max_virtqueue_pairs=draw(st.integers(1, most)) if multiqueue else None,
        mtu=draw(U16) if Feature.MTU in offered else None,
    )


def wanted(config: VdpaConfig) -> WantedDevice:
    """What is wanted of a device that is to be like this one."""
    assert config.features is not None
    return WantedDevice(config.features, config.mac, config.max_virtqueue_pairs, config.mtu)


def maker(
    features: FeatureSet, max_vqs: int = 2 * MAX_QUEUE_PAIRS + 1, bus: str | None = None
) -> ManagementDevice:
    """A management device for network devices with these features."""
    return ManagementDevice(bus, "vdpasim_net", frozenset({1}), max_vqs, features)
