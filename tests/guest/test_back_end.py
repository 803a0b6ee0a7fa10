"""The guest on vdpad-vhost-user: what it has set is what is captured, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.qemu.states import multicast_macs, unicast_macs
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS, Version
from tests.qemu.versions import why_unavailable as why_no_version
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.state.model import NetState
from vdpad.virtio.features import Feature

from .machine import why_unavailable
from .said import Said, coalescing_said, in_state, said_of
from .states import packed
from .vhost_user import AllQueues, DataQueues, OnBackEnd, on_back_end, started

MAC = "52:54:00:99:99:99"
VLANS = (1, 5, 31, 2047, 4094)
EVERYTHING = (
    f"ip link set eth0 address {MAC} promisc on allmulticast on",
    *(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in (*VLANS, 100)),
    "ip link delete eth0.100",
    *(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(3)),
    *(f"ip maddr add {mac} dev eth0" for mac in multicast_macs(20)),
    "ethtool -L eth0 combined 3",
    "ethtool -X eth0 weight 1 2 1",
    "ethtool -K eth0 rx-gro-hw off rxhash on",
    "ethtool -N eth0 rx-flow-hash udp6 sd",
    "ethtool -C eth0 rx-usecs 20 rx-frames 30 tx-usecs 40 tx-frames 50",
    "ethtool -Q eth0 queue_mask 0x2 --coalesce rx-usecs 33",
)


def _on(folder: Path, qemu: Version, card: type[AllQueues | DataQueues]) -> Iterator[OnBackEnd]:
    skip_or_fail(why_unavailable() or why_no_version(qemu))
    with on_back_end(folder, card, qemu) as on:
        yield on
        assert "Traceback" not in on.process.log()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnBackEnd]:
    """A guest whose control queue is the back end's."""
    yield from _on(tmp_path_factory.mktemp("back-end"), TRIXIE_BACKPORTS, AllQueues)


@pytest.fixture
def on(running: OnBackEnd) -> Iterator[OnBackEnd]:
    """The same; it is as booted before and after."""
    yield running
    running.guest.run("restart")


@pytest.fixture
def on_data_queues(tmp_path: Path) -> Iterator[OnBackEnd]:
    """A guest whose control queue QEMU keeps."""
    yield from _on(tmp_path, TRIXIE, DataQueues)


def untouched(said: Said) -> Said:
    """Without what the driver takes from the device, and sends no command for before it is set."""
    return replace(said, mac=None, guest_offloads=None)


def begun_anew(on: OnBackEnd) -> NetState:
    """The state of a guest whose driver has just begun."""
    state, told = on.state(), said_of(on.guest, "eth0")
    assert in_state(state) == untouched(told)
    assert told.mac == PACKET_CONFIG.mac
    assert state.coalescing is None
    assert {each["base"] for each in on.asked("capture")["rings"]} == {0}
    assert on.process.events("device-started")[-1]["goes_on"] is False
    assert on.asked("status")["report"] is None
    return state


def test_a_guest_as_booted(on: OnBackEnd) -> None:
    state = begun_anew(on)
    assert {Feature.MQ, Feature.RSS, Feature.VQ_NOTF_COAL} <= state.features
    assert on.asked("status")["commands"]["refused"] == 0


def test_everything_that_it_sets(on: OnBackEnd) -> None:
    on.guest.run(*EVERYTHING)
    state = on.state()
    assert in_state(state) == said_of(on.guest, "eth0")
    assert state.vlans == (0, *VLANS)
    assert state.mac == bytes.fromhex(MAC.replace(":", ""))
    assert state.mac_table is not None
    assert set(state.mac_table.unicast) == packed(unicast_macs(3))
    assert state.queue_pairs == 3
    assert state.coalescing is not None
    told = {pair: coalescing_said(on.guest, "eth0", pair) for pair in (0, 1)}
    assert told[0] == {"rx": state.coalescing.rx, "tx": state.coalescing.tx}
    assert state.coalescing.queues == {"2": told[1]["rx"], "3": told[1]["tx"]}
    assert on.asked("status")["commands"]["refused"] == 0


def test_packets_go_round(on: OnBackEnd) -> None:
    on.check_loop()
    on.guest.run("ethtool -L eth0 combined 4")
    on.check_loop()


def test_a_guest_that_is_paused_goes_on(on: OnBackEnd) -> None:
    on.guest.run(*EVERYTHING)
    before = on.state()
    on.check_loop()
    on.guest.qmp("stop")
    assert on.asked("status")["phase"] == "stopped"
    on.guest.qmp("cont")
    on.check_loop()
    assert on.state() == before
    report = on.asked("status")["report"]
    assert (report["outcome"], report["rejected"]) == ("restored", [])
    on.guest.run("ip link add link eth0 name eth0.7 type vlan id 7")
    assert in_state(on.state()) == said_of(on.guest, "eth0")


def test_a_driver_that_is_loaded_anew(on: OnBackEnd) -> None:
    before = in_state(on.state())
    on.guest.run(*EVERYTHING)
    on.check_loop()
    on.guest.run("restart")
    # The driver draws a key each time that it is loaded.
    assert replace(in_state(begun_anew(on)), key=before.key) == before
    on.check_loop()


def test_a_guest_that_boots_anew(on: OnBackEnd) -> None:
    on.guest.run(*EVERYTHING)
    on.check_loop()
    on.guest.reboot()
    begun_anew(on)
    on.check_loop()


def test_a_back_end_that_is_killed_under_a_guest(on_data_queues: OnBackEnd) -> None:
    on = on_data_queues
    on.guest.run("ethtool -L eth0 combined 2")
    on.check_loop()
    before = on.state()
    on.process.kill()
    on.send(10)  # which wait in the rings, or which QEMU drops once it has seen its peer go
    sent, received = on.packets()
    on.process = started(on.process.folder)
    on.check_loop(lost=sent - received)
    (event,) = on.process.events("device-started")
    assert event["goes_on"] is True
    assert on.state() == before
    assert [each["enabled"] for each in on.asked("status")["queues"]] == [True] * 4
