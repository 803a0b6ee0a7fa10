"""virtio_net_config against bytes written from the specification's layout."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import MACS, U16, U32, bits
from vdpad.errors import VdpadError
from vdpad.virtio.config import (
    ConfigTooShort,
    GuestOffload,
    HashType,
    NetConfig,
    TunnelType,
    cvq_index,
    offloads_of,
    pull_config,
    push_config,
)
from vdpad.virtio.features import Feature

# One field a line: mac@0, status@6, max_virtqueue_pairs@8, mtu@10, speed@12, duplex@16,
# rss_max_key_size@17, rss_max_indirection_table_length@18, supported_hash_types@20,
# supported_tunnel_types@24.
SPACE = bytes.fromhex(
    "525400123456"
    "0100"
    "0400"
    "dc05"
    "a8610000"
    "01"
    "28"
    "8000"
    "03010000"
    "10000000"
)  # fmt: skip
CONFIG = NetConfig(
    mac=bytes.fromhex("525400123456"),
    status=1,
    max_virtqueue_pairs=4,
    mtu=1500,
    speed=25000,
    duplex=1,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset({HashType.IPv4, HashType.TCPv4, HashType.UDP_EX}),
    supported_tunnel_types=frozenset({TunnelType.VXLAN}),
)

CONFIGS = st.builds(
    NetConfig,
    mac=MACS,
    status=U16,
    max_virtqueue_pairs=U16,
    mtu=U16,
    speed=U32,
    duplex=st.integers(0, 255),
    rss_max_key_size=st.integers(0, 255),
    rss_max_indirection_table_length=U16,
    supported_hash_types=bits(32),
    supported_tunnel_types=bits(32),
)


def test_a_config_space_is_read_field_by_field() -> None:
    assert pull_config(SPACE) == CONFIG


def test_a_config_is_written_as_the_specification_lays_it_out() -> None:
    assert push_config(CONFIG) == SPACE


@given(CONFIGS)
def test_a_config_that_is_written_is_read_the_same(config: NetConfig) -> None:
    assert pull_config(push_config(config)) == config


@pytest.mark.parametrize("length", range(8))
def test_a_config_space_without_mac_and_status_is_refused(length: int) -> None:
    with pytest.raises(ConfigTooShort, match=f"got {length}") as refused:
        pull_config(SPACE[:length])
    assert isinstance(refused.value, VdpadError)


@pytest.mark.parametrize("length", range(8, len(SPACE) + 1))
def test_what_a_shorter_config_space_lacks_reads_as_zero(length: int) -> None:
    zeros = bytes(len(SPACE) - length)
    assert pull_config(SPACE[:length]) == pull_config(SPACE[:length] + zeros)


def test_a_config_space_of_the_oldest_devices_has_no_rss() -> None:
    config = pull_config(SPACE[:12])
    assert config.mtu == 1500
    assert (config.rss_max_key_size, config.rss_max_indirection_table_length) == (0, 0)
    assert config.supported_hash_types == frozenset()


def test_what_a_newer_config_space_has_behind_is_left_alone() -> None:
    assert pull_config(SPACE + b"\xff" * 100) == CONFIG


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("GUEST_CSUM", 1),
        ("GUEST_TSO4", 7),
        ("GUEST_TSO6", 8),
        ("GUEST_ECN", 9),
        ("GUEST_UFO", 10),
        ("GUEST_UDP_TUNNEL_GSO", 46),
        ("GUEST_UDP_TUNNEL_GSO_CSUM", 47),
        ("GUEST_USO4", 54),
        ("GUEST_USO6", 55),
        ("RSC_EXT", 61),
    ],
)
def test_an_offload_has_the_specification_s_bit(name: str, bit: int) -> None:
    assert GuestOffload[name] == bit


def test_the_offloads_are_those_whose_features_are_there() -> None:
    features = frozenset(
        {Feature.GUEST_CSUM, Feature.GUEST_UDP_TUNNEL_GSO, Feature.MQ, Feature.HOST_TSO4}
    )
    assert offloads_of(features) == {1, 46}
    assert offloads_of(frozenset()) == frozenset()


def test_the_hash_types_have_the_specification_s_bits() -> None:
    names = ["IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6", "IP_EX", "TCP_EX", "UDP_EX"]
    assert [HashType[name] for name in names] == list(range(9))


@pytest.mark.parametrize(
    ("features", "pairs", "index"),
    [
        (set(), 4, 2),
        ({Feature.MQ}, 4, 8),
        ({Feature.RSS}, 4, 8),
        ({Feature.MQ, Feature.RSS}, 1, 2),
        ({Feature.CTRL_VQ, Feature.HASH_REPORT}, 4, 2),
        ({Feature.MQ}, 0x8000, 0x10000),
    ],
)
def test_the_control_queue_follows_the_data_queues(
    features: set[int], pairs: int, index: int
) -> None:
    assert cvq_index(frozenset(features), pairs) == index
