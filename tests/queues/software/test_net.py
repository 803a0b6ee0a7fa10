"""What the software device does with each command, rule by rule."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import COMMANDS
from vdpad.queues.software.device import ALL_FEATURES
from vdpad.queues.software.net import NetDevice
from vdpad.state.model import NetState
from vdpad.virtio.commands import (
    ACK_ERR,
    ACK_OK,
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqGet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GuestOffload, HashType, NetConfig, TunnelType
from vdpad.virtio.features import Feature

CONFIG = NetConfig(
    mac=bytes.fromhex("525400000001"),
    max_virtqueue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset({HashType.IPv4, HashType.TCPv4}),
    supported_tunnel_types=frozenset({TunnelType.VXLAN}),
)
KEY = bytes(range(40))
RSS = MqRssConfig(frozenset({HashType.IPv4}), 1, (0, 1, 2, 3), 4, KEY)
HASH = MqHashConfig(frozenset({HashType.IPv4}), KEY)


def _rss(**changes: Any) -> MqRssConfig:
    return dataclasses.replace(RSS, **changes)


@pytest.fixture
def device() -> NetDevice:
    return NetDevice(ALL_FEATURES, CONFIG)


def _acks(device: NetDevice, *commands: Command) -> list[int]:
    return [device.command(command.encode()) for command in commands]


def _applies(device: NetDevice, *commands: Command) -> None:
    assert _acks(device, *commands) == [ACK_OK] * len(commands)


def _refuses(device: NetDevice, command: Command) -> None:
    """The command is acked ERR and changes nothing."""
    before = device.settings()
    assert _acks(device, command) == [ACK_ERR]
    assert device.settings() == before


# --- after a reset ---


def test_a_device_begins_in_its_reset_state(device: NetDevice) -> None:
    settings = device.settings()
    assert settings["mac"] == "52:54:00:00:00:01"
    on = [mode for mode, value in settings["rx"].items() if value]
    assert on == ["promisc"]
    assert settings["mac_table"] == {
        "unicast": [],
        "multicast": [],
        "unicast_overflow": False,
        "multicast_overflow": False,
    }
    assert (settings["vlans"], settings["queue_pairs"]) == ([], 1)
    assert settings["guest_offloads"] == [offload.name for offload in GuestOffload]
    assert not {"rss", "hash_report", "coalescing"} & set(settings)


@given(st.lists(COMMANDS, max_size=20))
def test_a_reset_forgets_everything(commands: list[Command]) -> None:
    device = NetDevice(ALL_FEATURES, CONFIG)
    before = device.settings()
    _acks(device, *commands, RSS, MqPairsSet(3), VlanAdd(7), CoalTxSet(1, 1), RxPromisc(False))
    device.reset()
    assert device.settings() == before


# --- any command ---


@pytest.mark.parametrize(
    "readable",
    ["", "00", "02", "0200", "020001", "02000100ff", "0802", "03010000", "ff00", "0006 01"],
)
def test_what_is_no_command_is_refused(device: NetDevice, readable: str) -> None:
    before = device.settings()
    assert device.command(bytes.fromhex(readable)) == ACK_ERR
    assert device.settings() == before


ONE_OF_EACH: list[Command] = [
    RxPromisc(False),
    RxAllMulti(True),
    RxAllUni(True),
    RxNoMulti(True),
    RxNoUni(True),
    RxNoBcast(True),
    MacTableSet((bytes.fromhex("020000000001"),), ()),
    MacAddrSet(bytes.fromhex("020000000002")),
    VlanAdd(1),
    MqPairsSet(2),
    RSS,
    HASH,
    GuestOffloadsSet(frozenset()),
    CoalTxSet(1, 1),
    CoalRxSet(1, 1),
    CoalVqSet(0, 1, 1),
    HashTunnelSet(frozenset({TunnelType.VXLAN})),
    AnnounceAck(),
]


@pytest.mark.parametrize("command", ONE_OF_EACH, ids=lambda command: command.NAME)
def test_a_command_needs_its_feature_the_control_queue_and_no_other(command: Command) -> None:
    needed = frozenset({command.FEATURE, Feature.CTRL_VQ})
    assert _acks(NetDevice(needed, CONFIG), command) == [ACK_OK]
    for feature in needed:
        _refuses(NetDevice(ALL_FEATURES - {feature}, CONFIG), command)


def test_a_queue_s_coalescing_is_read_back(device: NetDevice) -> None:
    def read(queue: int, room: int = 9) -> bytes:
        return device.answer(CoalVqGet(queue, 0, 0).encode(), room)

    def told(packets: int, usecs: int) -> bytes:
        return b"\0" + packets.to_bytes(4, "little") + usecs.to_bytes(4, "little")

    assert read(0) == read(7) == told(0, 0)
    _applies(device, CoalTxSet(1, 2), CoalRxSet(3, 4), CoalVqSet(6, 5, 6), CoalVqSet(7, 7, 8))
    assert [read(each) for each in (0, 1, 6, 7)] == [told(3, 4), told(1, 2), told(5, 6), told(7, 8)]
    # The last one counts.
    _applies(device, CoalRxSet(9, 10))
    assert [read(each) for each in (6, 7)] == [told(9, 10), told(7, 8)]
    assert (read(7, 100), read(7, 5), read(7, 1)) == (told(7, 8), told(7, 8)[:5], b"\0")
    _refuses(device, CoalVqGet(8, 0, 0))
    assert read(8) == b"\1"


def test_the_acknowledgement_of_an_announcement_is_taken_and_sets_nothing(
    device: NetDevice,
) -> None:
    before = device.settings()
    assert _acks(device, AnnounceAck()) == [ACK_OK]
    assert device.settings() == before


@pytest.mark.parametrize("feature", [Feature.DEVICE_STATS, Feature.RSS_CONTEXT])
def test_what_it_does_not_serve_it_does_not_offer(feature: Feature) -> None:
    assert feature not in ALL_FEATURES


@given(st.binary(max_size=80))
def test_whatever_bytes_come_the_ack_is_ok_or_err(readable: bytes) -> None:
    assert NetDevice(ALL_FEATURES, CONFIG).command(readable) in (ACK_OK, ACK_ERR)


@given(st.lists(COMMANDS, max_size=30))
def test_a_refused_command_changes_nothing_but_rss(commands: list[Command]) -> None:
    device = NetDevice(ALL_FEATURES, CONFIG)
    for command in commands:
        before = device.settings()
        if _acks(device, command) == [ACK_ERR]:
            if command.CODE[0] == 4:
                before = {k: v for k, v in before.items() if k not in ("rss", "hash_report")}
            assert device.settings() == before


# --- receive modes ---


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (RxPromisc, "promisc"),
        (RxAllMulti, "allmulti"),
        (RxAllUni, "alluni"),
        (RxNoMulti, "nomulti"),
        (RxNoUni, "nouni"),
        (RxNoBcast, "nobcast"),
    ],
)
def test_a_receive_mode_is_switched_by_itself(
    device: NetDevice, mode: type[RxPromisc], name: str
) -> None:
    for on in (True, False, True):
        before = device.settings()["rx"]
        _applies(device, mode(on))
        assert device.settings()["rx"] == before | {name: on}


# --- addresses ---


@pytest.mark.parametrize("mac", ["000000000000", "01005e000001", "ffffffffffff"])
def test_the_device_s_address_is_unicast_and_not_zero(device: NetDevice, mac: str) -> None:
    _refuses(device, MacAddrSet(bytes.fromhex(mac)))


def test_the_device_s_address_is_replaced(device: NetDevice) -> None:
    _applies(device, MacAddrSet(bytes.fromhex("020000000009")))
    assert device.settings()["mac"] == "02:00:00:00:00:09"
    assert device.config.mac == bytes.fromhex("020000000009")
    device.reset()
    assert device.config == CONFIG


def _unicast(count: int) -> tuple[bytes, ...]:
    return tuple(bytes([2, 0, 0, 0, n >> 8, n & 255]) for n in range(count))


def _multicast(count: int) -> tuple[bytes, ...]:
    return tuple(bytes([3, 0, 0, 0, n >> 8, n & 255]) for n in range(count))


def _table(device: NetDevice) -> tuple[int, int, bool, bool]:
    table = device.settings()["mac_table"]
    return (
        len(table["unicast"]),
        len(table["multicast"]),
        table["unicast_overflow"],
        table["multicast_overflow"],
    )


def test_a_mac_table_replaces_the_one_before(device: NetDevice) -> None:
    _applies(device, MacTableSet(_unicast(3), _multicast(2)), MacTableSet((), _multicast(1)))
    assert device.settings()["mac_table"]["multicast"] == ["03:00:00:00:00:00"]
    assert _table(device) == (0, 1, False, False)


@pytest.mark.parametrize(
    "command",
    [
        MacTableSet(_multicast(1), ()),
        MacTableSet((), _unicast(1)),
        MacTableSet((*_unicast(3), *_multicast(1)), ()),
        MacTableSet((), (*_multicast(3), *_unicast(1))),
    ],
)
def test_each_half_of_a_mac_table_takes_its_own_kind(
    device: NetDevice, command: MacTableSet
) -> None:
    _refuses(device, command)


@pytest.mark.parametrize(
    ("unicast", "multicast", "held"),
    [
        (64, 0, (64, 0, False, False)),
        (0, 64, (0, 64, False, False)),
        (65, 3, (0, 3, True, False)),  # as QEMU's device was seen to do
        (3, 65, (3, 0, False, True)),
        (65, 65, (0, 0, True, True)),
        (40, 24, (40, 24, False, False)),
        (40, 25, (40, 0, False, True)),
    ],
)
def test_a_half_for_which_64_are_not_enough_overflows_and_is_acked_ok(
    device: NetDevice, unicast: int, multicast: int, held: tuple[int, int, bool, bool]
) -> None:
    _applies(device, MacTableSet(_unicast(unicast), _multicast(multicast)))
    assert _table(device) == held


def test_an_overflow_ends_with_the_next_table(device: NetDevice) -> None:
    _applies(device, MacTableSet(_unicast(65), _multicast(65)), MacTableSet((), ()))
    assert _table(device) == (0, 0, False, False)


# --- VLANs ---


@pytest.mark.parametrize("vid", [0, 1, 4095])
def test_a_vlan_is_added_and_deleted(device: NetDevice, vid: int) -> None:
    _applies(device, VlanAdd(vid))
    assert device.settings()["vlans"] == [vid]
    _applies(device, VlanDel(vid))
    assert device.settings()["vlans"] == []


@pytest.mark.parametrize("command", [VlanAdd(4096), VlanAdd(65535), VlanDel(4096), VlanDel(7)])
def test_a_vlan_past_4095_or_not_there_is_refused(device: NetDevice, command: Command) -> None:
    _refuses(device, command)


def test_a_vlan_that_is_there_is_refused(device: NetDevice) -> None:
    _applies(device, VlanAdd(7))
    _refuses(device, VlanAdd(7))


# --- queues and hashing ---


@pytest.mark.parametrize("pairs", [1, 3, 4])
def test_queue_pairs_go_up_to_the_device_s_whatever_the_number(
    device: NetDevice, pairs: int
) -> None:
    _applies(device, MqPairsSet(pairs))
    assert device.settings()["queue_pairs"] == pairs


@pytest.mark.parametrize("pairs", [0, 5, 0x8000, 0xFFFF])
def test_other_numbers_of_queue_pairs_are_refused(device: NetDevice, pairs: int) -> None:
    _refuses(device, MqPairsSet(pairs))


def test_rss_is_held_as_it_came_and_sets_the_queue_pairs(device: NetDevice) -> None:
    _applies(device, RSS)
    settings = device.settings()
    assert settings["rss"] == {
        "hash_types": ["IPv4"],
        "indirection_table": [0, 1, 2, 3],
        "unclassified_queue": 1,
        "max_tx_queues": 4,
        "key": KEY.hex(),
    }
    assert settings["queue_pairs"] == 4


@pytest.mark.parametrize(
    "command",
    [
        _rss(indirection_table=(0,) * 128),
        _rss(indirection_table=(3,)),
        _rss(unclassified_queue=3),
        _rss(key=b"\0"),
        _rss(hash_types=frozenset()),
        _rss(hash_types=CONFIG.supported_hash_types),
        _rss(max_tx_queues=1, indirection_table=(0,)),
    ],
)
def test_rss_is_taken_up_to_the_device_s_limits(device: NetDevice, command: MqRssConfig) -> None:
    _applies(device, command)
    assert "rss" in device.settings()


@pytest.mark.parametrize(
    "command",
    [
        _rss(indirection_table=(0, 1, 2)),
        _rss(indirection_table=(0,) * 256),
        _rss(indirection_table=(0, 4)),
        _rss(unclassified_queue=4),
        _rss(key=bytes(41)),
        _rss(key=b""),
        _rss(hash_types=frozenset(), key=b""),
        _rss(hash_types=frozenset({HashType.UDPv4})),
        _rss(max_tx_queues=0),
        _rss(max_tx_queues=5),
    ],
)
def test_rss_past_a_limit_is_refused_and_rss_is_off_and_the_pairs_are_as_before(
    device: NetDevice, command: MqRssConfig
) -> None:
    _applies(device, MqPairsSet(2))
    _refuses(device, command)
    assert "rss" not in device.settings()


@pytest.mark.parametrize(
    "command", [MqHashConfig(frozenset(), b""), MqHashConfig(frozenset(), KEY), HASH]
)
def test_a_hash_report_is_held(device: NetDevice, command: MqHashConfig) -> None:
    _applies(device, command)
    report = device.settings()["hash_report"]
    assert report == {
        "hash_types": ["IPv4"] if command.hash_types else [],
        "key": command.key.hex(),
    }


@pytest.mark.parametrize(
    "command",
    [
        MqHashConfig(frozenset({HashType.IPv4}), b""),
        MqHashConfig(frozenset({HashType.IPv4}), bytes(41)),
        MqHashConfig(frozenset({HashType.UDPv4}), KEY),
        MqHashConfig(frozenset({31}), KEY),
    ],
)
def test_a_hash_report_past_a_limit_is_refused(device: NetDevice, command: MqHashConfig) -> None:
    _refuses(device, command)


CLASS_4 = [
    pytest.param(MqPairsSet(2).encode(), ACK_OK, id="pairs"),
    pytest.param(MqPairsSet(0).encode(), ACK_ERR, id="refused-pairs"),
    pytest.param(_rss(key=b"").encode(), ACK_ERR, id="refused-rss"),
    pytest.param(b"\x04\x00", ACK_ERR, id="truncated"),
    pytest.param(b"\x04", ACK_ERR, id="class-alone"),
    pytest.param(b"\x04\x09", ACK_ERR, id="unknown"),
]


@pytest.mark.parametrize("hashing", [RSS, HASH], ids=lambda command: command.NAME)
@pytest.mark.parametrize(("readable", "ack"), CLASS_4)
def test_any_command_of_class_4_switches_hashing_off_even_a_refused_one(
    device: NetDevice, hashing: Command, readable: bytes, ack: int
) -> None:
    _applies(device, hashing)
    assert device.command(readable) == ack
    assert not {"rss", "hash_report"} & set(device.settings())


def test_the_last_of_rss_and_hash_report_wins(device: NetDevice) -> None:
    _applies(device, RSS, HASH)
    assert "rss" not in device.settings()
    _applies(device, RSS)
    assert "hash_report" not in device.settings()


@pytest.mark.parametrize("command", [VlanAdd(1), RxPromisc(True), CoalTxSet(1, 1)])
def test_a_command_of_another_class_leaves_hashing_on(device: NetDevice, command: Command) -> None:
    _applies(device, RSS, command)
    assert "rss" in device.settings()


# --- offloads ---


@pytest.mark.parametrize("offload", GuestOffload)
def test_an_offload_needs_its_feature(offload: GuestOffload) -> None:
    features = frozenset({Feature.CTRL_VQ, Feature.CTRL_GUEST_OFFLOADS, Feature[offload.name]})
    device = NetDevice(features, CONFIG)
    assert device.settings()["guest_offloads"] == [offload.name]
    _applies(device, GuestOffloadsSet(frozenset()))
    assert device.settings()["guest_offloads"] == []
    _applies(device, GuestOffloadsSet(frozenset({offload})))
    _refuses(
        NetDevice(features - {Feature[offload.name]}, CONFIG),
        GuestOffloadsSet(frozenset({offload})),
    )


@pytest.mark.parametrize("bit", [0, 2, 45, 63])
def test_a_bit_that_is_no_offload_is_refused(device: NetDevice, bit: int) -> None:
    _refuses(device, GuestOffloadsSet(frozenset({GuestOffload.GUEST_CSUM, bit})))


# --- coalescing ---


def test_coalescing_is_held_by_direction(device: NetDevice) -> None:
    _applies(device, CoalTxSet(1, 2), CoalRxSet(3, 4))
    assert device.settings()["coalescing"] == {
        "tx": {"max_packets": 1, "max_usecs": 2},
        "rx": {"max_packets": 3, "max_usecs": 4},
    }


@pytest.mark.parametrize("pairs", [1, 3, 4])
def test_a_queue_s_coalescing_is_for_a_queue_that_there_is(device: NetDevice, pairs: int) -> None:
    """However many of them are in use: Linux sets it for all."""
    _applies(device, MqPairsSet(pairs), CoalVqSet(7, 5, 6))
    _refuses(device, CoalVqSet(8, 5, 6))
    queues = device.settings()["coalescing"]["queues"]
    assert queues == {"7": {"max_packets": 5, "max_usecs": 6}}


def test_a_direction_s_coalescing_overwrites_its_queues_and_no_others(device: NetDevice) -> None:
    _applies(device, MqPairsSet(2), *(CoalVqSet(queue, 5, 6) for queue in range(4)))
    _applies(device, CoalRxSet(1, 1))
    assert set(device.settings()["coalescing"]["queues"]) == {"1", "3"}
    _applies(device, CoalTxSet(1, 1))
    assert "queues" not in device.settings()["coalescing"]


# --- settings ---

_FEATURE_OF_PART = {
    "mac": Feature.CTRL_MAC_ADDR,
    "mac_table": Feature.CTRL_RX,
    "vlans": Feature.CTRL_VLAN,
    "queue_pairs": Feature.MQ,
    "guest_offloads": Feature.CTRL_GUEST_OFFLOADS,
}


@pytest.mark.parametrize(("part", "feature"), _FEATURE_OF_PART.items())
def test_a_part_is_shown_where_its_feature_is_there(part: str, feature: Feature) -> None:
    assert part in NetDevice(ALL_FEATURES, CONFIG).settings()
    assert part not in NetDevice(ALL_FEATURES - {feature}, CONFIG).settings()


@pytest.mark.parametrize(
    ("features", "modes"),
    [
        ({Feature.CTRL_RX}, {"promisc", "allmulti"}),
        ({Feature.CTRL_RX_EXTRA}, {"alluni", "nomulti", "nouni", "nobcast"}),
        (
            {Feature.CTRL_RX, Feature.CTRL_RX_EXTRA},
            {"promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"},
        ),
        (set(), set()),
    ],
)
def test_a_receive_mode_is_shown_where_its_feature_is_there(
    features: set[Feature], modes: set[str]
) -> None:
    device = NetDevice(frozenset({Feature.CTRL_VQ, *features}), CONFIG)
    assert set(device.settings().get("rx", {})) == modes


@given(
    st.lists(st.sampled_from(ONE_OF_EACH), max_size=20),
    st.frozensets(st.sampled_from([Feature(bit) for bit in ALL_FEATURES])),
)
def test_settings_are_a_valid_state_whatever_was_applied(
    commands: list[Command], without: frozenset[Feature]
) -> None:
    device = NetDevice(ALL_FEATURES - without, CONFIG)
    _acks(device, *commands)
    NetState.model_validate_json(json.dumps(device.settings()))


def test_settings_are_a_valid_state_also_where_rss_has_more_receive_than_transmit_queues(
    device: NetDevice,
) -> None:
    _applies(device, _rss(max_tx_queues=1))
    NetState.model_validate_json(json.dumps(device.settings()))
