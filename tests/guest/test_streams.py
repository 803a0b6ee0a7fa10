"""Streams of a guest that runs, read by vdpad, against what the guest's own tools say."""

from __future__ import annotations

import pytest

from tests.qemu.states import multicast_macs, unicast_macs
from vdpad.virtio.config import HashType, offloads_of
from vdpad.virtio.features import Feature, unmet_requirements

from .machine import Guest
from .said import said_of
from .states import SLOTS, found_in, hash_types_of, packed, state_of, table_of, unsaid_state_of

KEY = bytes(range(100, 140))
IPV4 = {HashType.IPv4, HashType.TCPv4, HashType.UDPv4}
IPV6 = {HashType.IPv6, HashType.TCPv6, HashType.UDPv6}


def test_as_booted_with_everything(running: Guest) -> None:
    state = state_of(running)
    assert {Feature.MQ, Feature.RSS, Feature.HASH_REPORT, Feature.VERSION_1} <= state.features
    assert state.rx is not None
    assert not any(state.rx.model_dump().values())
    assert (state.queue_pairs, state.hash_report) == (1, None)
    assert state.rss is not None
    assert state.rss.indirection_table == (0,) * 128
    assert state.rss.hash_types == IPV4 | IPV6


def test_as_booted_with_packed_rings_and_hash_reports(running: Guest) -> None:
    state = state_of(running, "eth1")
    assert {Feature.RING_PACKED, Feature.HASH_REPORT} <= state.features
    assert {Feature.MQ, Feature.RSS, Feature.CTRL_VLAN}.isdisjoint(state.features)
    assert (state.rss, state.vlans) == (None, None)
    assert state.hash_report is not None
    assert state.hash_report.hash_types == IPV4 | IPV6


def test_as_booted_without_control_queue(running: Guest) -> None:
    state = state_of(running, "eth2")
    assert Feature.CTRL_VQ not in state.features
    parts = state.model_dump(exclude_none=True)
    assert parts.keys() - {"queue_pairs"} == {"version", "features"}


def test_as_booted_without_checksums(running: Guest) -> None:
    """guest_csum=off: Linux negotiates what the specification allows with GUEST_CSUM only."""
    state = state_of(running, "eth3")
    assert Feature.GUEST_CSUM not in state.features
    assert {Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_UFO} <= state.features
    assert unmet_requirements(state.features)
    assert state.guest_offloads == offloads_of(state.features)


def test_as_booted_with_offloads_and_no_control_queue(running: Guest) -> None:
    state = state_of(running, "eth4")
    assert Feature.CTRL_GUEST_OFFLOADS in state.features
    assert Feature.CTRL_VQ not in state.features
    parts = state.model_dump(exclude_none=True)
    assert parts.keys() == {"version", "features"}


def test_every_device_is_found_in_every_stream(running: Guest) -> None:
    first, second = found_in(running), found_in(running)
    assert first.keys() == set(SLOTS.values())
    assert first == second


def test_no_driver(running: Guest) -> None:
    running.run("rmmod virtio_net")
    found = found_in(running)
    running.run("up")
    for each in found.values():
        assert each.state is not None, each.problems
        parts = each.state.model_dump(exclude_none=True)
        assert parts.keys() - {"queue_pairs"} == {"version", "features"}
        assert each.state.features == frozenset()


def test_a_reset_forgets(guest: Guest) -> None:
    before = state_of(guest)
    guest.run(
        "ip link add link eth0 name eth0.5 type vlan id 5",
        "ip link set eth0 promisc on allmulticast on address 52:54:00:99:99:99",
        "ethtool -L eth0 combined 4",
        "ethtool -K eth0 rx-gro-hw off",
    )
    assert state_of(guest) != before
    guest.run("restart")
    after = state_of(guest)
    # The driver draws a key each time that it is loaded.
    assert after.model_copy(update={"rss": None}) == before.model_copy(update={"rss": None})


def test_vlans(guest: Guest) -> None:
    ids = (1, 5, 31, 32, 100, 2047, 4094)
    guest.run(*(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in ids))
    assert {0, *ids} <= set(state_of(guest).vlans or ())
    guest.run("ip link delete eth0.32", "ip link delete eth0.4094")
    left = set(state_of(guest, gone=(32, 4094)).vlans or ())
    assert left & {0, *ids} == {0, 1, 5, 31, 100, 2047}


def test_own_address(guest: Guest) -> None:
    guest.run("ip link set eth0 address 52:54:00:99:99:99")
    guest.run("ip link set eth1 address 02:00:00:00:00:01")
    assert state_of(guest).mac == bytes.fromhex("525400999999")
    assert state_of(guest, "eth1").mac == bytes.fromhex("020000000001")


def test_unicast_addresses(guest: Guest) -> None:
    of_interfaces, alone = unicast_macs(5)[:3], unicast_macs(5)[3:]
    for at, mac in enumerate(of_interfaces):
        guest.run(
            f"ip link add mac{at} link eth0 address {mac} type macvlan", f"ip link set mac{at} up"
        )
    guest.run(*(f"bridge fdb add {mac} dev eth0" for mac in alone))
    assert set(table_of(state_of(guest)).unicast) == packed(of_interfaces + alone)
    guest.run("ip link delete mac1", f"bridge fdb del {alone[0]} dev eth0")
    left = packed((of_interfaces[0], of_interfaces[2], alone[1]))
    assert set(table_of(state_of(guest)).unicast) == left


def test_multicast_addresses(guest: Guest) -> None:
    before = set(table_of(state_of(guest)).multicast)
    macs = multicast_macs(20)
    guest.run(*(f"ip maddr add {mac} dev eth0" for mac in macs))
    assert set(table_of(state_of(guest)).multicast) == before | packed(macs)
    guest.run(f"ip maddr del {macs[7]} dev eth0")
    assert set(table_of(state_of(guest)).multicast) == before | packed(macs[:7] + macs[8:])


def test_receive_modes(guest: Guest) -> None:
    for promisc, allmulti in ((True, False), (True, True), (False, True), (False, False)):
        words = (("off", "on")[mode] for mode in (promisc, allmulti))
        guest.run("ip link set eth0 promisc {} allmulticast {}".format(*words))
        modes = state_of(guest).rx
        assert modes is not None
        assert {mode for mode, on in modes if on} == {
            *(["promisc"] if promisc else []),
            *(["allmulti"] if allmulti else []),
        }


def test_queue_pairs_and_rss(guest: Guest) -> None:
    guest.run("ethtool -L eth0 combined 3")
    spread = state_of(guest)
    assert spread.queue_pairs == 3
    assert spread.rss is not None
    assert spread.rss.indirection_table == (tuple(range(3)) * 43)[:128]
    guest.run(f"ethtool -X eth0 hkey {KEY.hex(':')} weight 1 2 1")
    weighed = state_of(guest)
    assert weighed.rss is not None
    assert weighed.rss.key == KEY
    assert weighed.rss.indirection_table == (0,) * 32 + (1,) * 64 + (2,) * 32
    assert (weighed.rss.unclassified_queue, weighed.rss.max_tx_queues) == (0, 3)


def test_queue_pairs_set_behind_a_table_of_one_s_own_end_rss(guest: Guest) -> None:
    guest.run("ethtool -L eth0 combined 3", "ethtool -X eth0 equal 2")
    assert state_of(guest).rss is not None
    # Linux leaves a table that somebody has set alone, and sends the queue pairs by their own
    # command, which ends RSS in the device. It says that its table is still there.
    guest.run("ethtool -L eth0 combined 4")
    assert said_of(guest, "eth0").indirection_table == (0, 1) * 64
    state = unsaid_state_of(guest)
    assert (state.queue_pairs, state.rss) == (4, None)


@pytest.mark.parametrize("name", ["eth0", "eth1"])
def test_hash_types(guest: Guest, name: str) -> None:
    guest.run(f"ethtool -K {name} rxhash on", f"ethtool -N {name} rx-flow-hash udp4 sd")
    assert hash_types_of(state_of(guest, name)) == (IPV4 | IPV6) - {HashType.UDPv4}
    guest.run(*(f"ethtool -N {name} rx-flow-hash {flow} sd" for flow in ("tcp6", "udp6")))
    assert hash_types_of(state_of(guest, name)) == {*IPV4, HashType.IPv6} - {HashType.UDPv4}


@pytest.mark.parametrize("name", ["eth0", "eth1"])
def test_no_hash_types(guest: Guest, name: str) -> None:
    key = said_of(guest, name).key
    guest.run(f"ethtool -K {name} rxhash on", f"ethtool -K {name} rxhash off")
    state = unsaid_state_of(guest, name)
    hashes = state.rss or state.hash_report
    assert hashes is not None
    assert (hashes.hash_types, hashes.key) == (frozenset(), key)


def test_offloads_without_checksums(guest: Guest) -> None:
    every = state_of(guest, "eth3").guest_offloads
    guest.run("ethtool -K eth3 rx-gro-hw off")
    assert state_of(guest, "eth3").guest_offloads == frozenset()
    guest.run("ethtool -K eth3 rx-gro-hw on")
    assert state_of(guest, "eth3").guest_offloads == every


def test_offloads(guest: Guest) -> None:
    every = state_of(guest).guest_offloads
    guest.run("ethtool -K eth0 rx-gro-hw off")
    few = state_of(guest).guest_offloads
    guest.run("ethtool -K eth0 rx-gro-hw on")
    assert state_of(guest).guest_offloads == every
    assert every is not None
    assert few is not None
    assert few < every


def test_unicast_overflow(guest: Guest) -> None:
    macs = unicast_macs(65)
    guest.run(*(f"bridge fdb add {mac} dev eth0" for mac in macs))
    table = table_of(unsaid_state_of(guest))
    assert (table.unicast_overflow, table.multicast_overflow) == (True, False)
    assert table.unicast == ()
    assert frozenset(table.multicast) == said_of(guest, "eth0").multicast
    # 64 leave the multicast addresses, of which there are always some, no room.
    guest.run(f"bridge fdb del {macs[9]} dev eth0")
    table = table_of(unsaid_state_of(guest))
    assert (table.unicast_overflow, table.multicast_overflow) == (False, True)
    assert set(table.unicast) == packed(macs[:9] + macs[10:])
    assert table.multicast == ()


def test_multicast_overflow(guest: Guest) -> None:
    guest.run(*(f"ip maddr add {mac} dev eth0" for mac in multicast_macs(65)))
    guest.run(f"bridge fdb add {unicast_macs(1)[0]} dev eth0")
    table = table_of(unsaid_state_of(guest))
    assert (table.unicast_overflow, table.multicast_overflow) == (False, True)
    assert table.multicast == ()
    assert set(table.unicast) == packed(unicast_macs(1))
