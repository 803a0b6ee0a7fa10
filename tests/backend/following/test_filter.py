"""From one filter to another: what is sent, in which order, and what a device then lets in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rx_filter import card
from vdpad.backend.following.filter import (
    FOLLOWED,
    WIDE,
    Filter,
    HeldFilter,
    filter_of,
)
from vdpad.queues.software.net import NetDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.state.formats.rx_filter import rx_filters
from vdpad.state.found import FormatError
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.features import Feature

FEW = FOLLOWED - {Feature.CTRL_RX_EXTRA}
REACH = st.sampled_from(["normal", "none", "all"])
VLANS = st.sets(st.integers(0, 4095), max_size=20)


def shown(features: frozenset[int] = FOLLOWED, **more: Any) -> Filter:
    (found,) = rx_filters([card(**more)])
    return filter_of(found, features)


def brought(held: HeldFilter, wanted: Filter) -> list[str]:
    """What is sent to a device that takes all of it."""
    sent = []
    for each in held.commands_to(wanted):
        held.took(each)
        sent.append(f"{each.NAME} {each.arguments()}")
    return sent


def after(*filters: Filter) -> HeldFilter:
    held = HeldFilter()
    for each in filters:
        brought(held, each)
    return held


def test_a_device_that_was_reset_is_opened_wide_at_once() -> None:
    sent = brought(HeldFilter(), WIDE)
    assert sent[0] == "RX_PROMISC on=1"
    assert len([each for each in sent if each.startswith("VLAN_ADD")]) == 4096


def test_what_opens_comes_first_and_what_closes_last() -> None:
    held = after(WIDE, shown(vlan="normal", vlan_table=[1, 2], unicast="none"))
    wanted = shown(
        vlan="normal",
        vlan_table=[3, 2],
        multicast="all",
        main_mac="52:54:00:00:00:07",
        unicast_table=["52:54:00:00:00:09"],
        broadcast_allowed=True,
    )
    assert brought(held, wanted) == [
        "RX_ALLMULTI on=1",
        "RX_NOUNI on=0",
        "VLAN_ADD vid=3",
        "MAC_ADDR_SET mac=52:54:00:00:00:07",
        "MAC_TABLE_SET unicast=1 multicast=0",
        "VLAN_DEL vid=1",
        "RX_NOBCAST on=1",
    ]
    assert brought(held, wanted) == []


def test_promiscuous_mode_ends_last() -> None:
    assert brought(after(WIDE), shown())[-1] == "RX_PROMISC on=0"


def test_it_is_opened_again_by_what_was_closed_alone() -> None:
    held = after(WIDE, shown(vlan="normal", vlan_table=[*range(4095)], broadcast_allowed=True))
    assert brought(held, WIDE) == ["RX_PROMISC on=1", "RX_NOBCAST on=0", "VLAN_ADD vid=4095"]


def test_a_guest_that_filters_no_vlan() -> None:
    assert shown(vlan="all").vlans == WIDE.vlans


@pytest.mark.parametrize(
    ("features", "told", "mode"),
    [
        (FOLLOWED, {"unicast_overflow": True}, "RX_ALLUNI on=1"),
        (FEW, {"unicast_overflow": True}, "RX_PROMISC on=1"),
        (FEW, {"unicast": "all"}, "RX_PROMISC on=1"),
        (FEW, {"multicast_overflow": True}, "RX_ALLMULTI on=1"),
    ],
)
def test_where_a_table_is_not_enough(
    features: frozenset[int], told: dict[str, Any], mode: str
) -> None:
    assert mode in brought(HeldFilter(), shown(features, **told))


@pytest.mark.parametrize("vid", [-1, 4096, 1 << 80])
def test_no_vlan(vid: int) -> None:
    with pytest.raises(FormatError, match="expected VLAN ids below 4096"):
        shown(vlan="normal", vlan_table=[1, vid])


@st.composite
def cards(draw: st.DrawFn) -> dict[str, Any]:
    macs = draw(st.sets(st.binary(min_size=6, max_size=6), max_size=8))
    return {
        "promiscuous": draw(st.booleans()),
        "broadcast_allowed": draw(st.booleans()),
        "unicast": draw(REACH),
        "multicast": draw(REACH),
        "vlan": "normal",
        "vlan_table": list(draw(VLANS)),
        "unicast_table": [mac.hex(":") for mac in macs if not mac[0] & 1],
        "multicast_table": [mac.hex(":") for mac in macs if mac[0] & 1],
    }


@given(st.lists(cards(), min_size=1, max_size=4))
def test_a_device_has_the_last_filter_whatever_came_before(told: list[dict[str, Any]]) -> None:
    device, held = NetDevice(PACKET_FEATURES, PACKET_CONFIG), HeldFilter()
    for wanted in (WIDE, *(shown(**each) for each in told)):
        for command in held.commands_to(wanted):
            assert device.command(command.encode()) == ACK_OK
            held.took(command)
    last, settings = told[-1], device.settings()
    assert settings["rx"] == {
        "promisc": last["promiscuous"],
        "allmulti": last["multicast"] == "all",
        "alluni": last["unicast"] == "all",
        "nomulti": last["multicast"] == "none",
        "nouni": last["unicast"] == "none",
        "nobcast": last["broadcast_allowed"],
    }
    assert settings["vlans"] == sorted(last["vlan_table"])
    assert set(settings["mac_table"]["unicast"]) == set(last["unicast_table"])
    assert set(settings["mac_table"]["multicast"]) == set(last["multicast_table"])
