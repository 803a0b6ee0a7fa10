"""Does the harness itself tell the truth? Its own plain driver against its own judges."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import struct
import sys
from pathlib import Path

import pytest

from tests.support.descriptors import open_descriptors

from .driver import driven, indices
from .guestless import (
    Options,
    StartError,
    Unavailable,
    guestless,
)
from .process import F_GET_SEALS, F_SEAL_SHRINK
from .stream import RssSettings, StreamError, device_states, read_net_settings
from .versions import BOOKWORM, TRIXIE, TRIXIE_BACKPORTS

OK = 0
REFUSED = 1
RING_EVENT_IDX = 29
CTRL_VQ, CTRL_VLAN, VERSION_1, SPEED_DUPLEX = 17, 19, 32, 63

MAC = "52:54:00:aa:bb:cc"
RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST = (
    bytes([0, command]) for command in range(6)
)
MAC_TABLE_SET, MAC_ADDR_SET = b"\x01\x00", b"\x01\x01"
VLAN_ADD = b"\x02\x00"
MQ_VQ_PAIRS_SET, MQ_RSS_CONFIG, MQ_HASH_CONFIG = b"\x04\x00", b"\x04\x01", b"\x04\x02"
GUEST_OFFLOADS_SET = b"\x05\x00"

KEY = bytes(range(40))
IPV4_TCPV4 = 0b11
CSUM_AND_TSO4 = 1 << 1 | 1 << 7


def vlan_add(vid: int) -> bytes:
    return VLAN_ADD + struct.pack("<H", vid)


def addresses(*macs: str) -> bytes:
    packed = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    return struct.pack("<I", len(macs)) + b"".join(packed)


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_mac_address(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert qemu.config.mac == Options().mac
        assert await driver.send(MAC_ADDR_SET + bytes.fromhex(MAC.replace(":", ""))) == OK
        assert (await qemu.rx_filter()).main_mac == MAC


async def test_vlans(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert (await qemu.rx_filter()).vlan == "none"
        for vid in (4095, 5, 0):
            assert await driver.send(vlan_add(vid)) == OK
        found = await qemu.rx_filter()
        assert (found.vlan, found.vlan_table) == ("normal", (0, 5, 4095))


async def test_vlan_4096_is_refused(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert await driver.send(vlan_add(4096)) == REFUSED
        assert (await qemu.rx_filter()).vlan_table == ()


async def test_mac_table(program: str) -> None:
    unicast = ("52:54:00:00:00:07", "52:54:00:00:00:08")
    multicast = ("01:00:5e:00:00:01", "33:33:00:00:00:01")
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert await driver.send(MAC_TABLE_SET + addresses(*unicast) + addresses(*multicast)) == OK
        found = await qemu.rx_filter()
        assert (found.unicast_table, found.multicast_table) == (unicast, multicast)
        assert not found.unicast_overflow
        settings = await qemu.settings()
        assert (settings.unicast, settings.multicast) == (unicast, multicast)


async def test_mac_table_overflow(program: str) -> None:
    unicast = [f"52:54:00:00:00:{index:02x}" for index in range(65)]
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert await driver.send(MAC_TABLE_SET + addresses(*unicast) + addresses()) == OK
        found = await qemu.rx_filter()
        assert (found.unicast_overflow, found.multicast_overflow) == (True, False)
        assert found.unicast_table == ()
        settings = await qemu.settings()
        assert (settings.uni_overflow, settings.multi_overflow) == (True, False)


@pytest.mark.parametrize(
    ("command", "value", "field", "shown"),
    [
        (RX_PROMISC, 0, "promiscuous", False),
        (RX_PROMISC, 1, "promiscuous", True),
        (RX_ALLMULTI, 1, "multicast", "all"),
        (RX_ALLUNI, 1, "unicast", "all"),
        (RX_NOMULTI, 1, "multicast", "none"),
        (RX_NOUNI, 1, "unicast", "none"),
        (RX_NOBCAST, 1, "nobcast", True),
        (RX_NOBCAST, 0, "nobcast", False),
    ],
)
async def test_rx_mode(command: bytes, value: int, field: str, shown: object) -> None:
    async with driven() as (qemu, driver):
        assert await driver.send(command + bytes([value])) == OK
        assert getattr(await qemu.rx_filter(), field) == shown


async def test_rx_modes_in_the_stream(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        for command in (RX_ALLMULTI, RX_NOUNI):
            assert await driver.send(command + b"\x01") == OK
        assert await driver.send(RX_PROMISC + b"\x00") == OK
        settings = await qemu.settings()
    modes = (
        settings.promisc,
        settings.allmulti,
        settings.alluni,
        settings.nomulti,
        settings.nouni,
        settings.nobcast,
    )
    assert modes == (False, True, False, False, True, False)


async def test_both_judges_agree_and_the_filter_outlives_the_stream(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        for vid in range(0, 4096, 7):
            assert await driver.send(vlan_add(vid)) == OK
        before = await qemu.rx_filter()
        settings = await qemu.settings()
        assert await qemu.rx_filter() == before
        assert settings.vlans == frozenset(before.vlan_table) == frozenset(range(0, 4096, 7))
        assert settings.mac == before.main_mac
        assert settings.promisc == before.promiscuous


async def test_without_ctrl_vlan_every_vlan_passes(program: str) -> None:
    async with guestless(Options(qemu=program, without=frozenset({CTRL_VLAN}))) as qemu:
        assert (await qemu.rx_filter()).vlan == "all"
        assert (await qemu.settings()).vlans == frozenset(range(4096))


async def test_queue_pairs(program: str) -> None:
    async with driven(Options(qemu=program, queue_pairs=4)) as (qemu, driver):
        assert qemu.config.max_virtqueue_pairs == 4
        assert await driver.send(MQ_VQ_PAIRS_SET + struct.pack("<H", 5)) == REFUSED
        assert await driver.send(MQ_VQ_PAIRS_SET + struct.pack("<H", 3)) == OK
        settings = await qemu.settings()
        assert (settings.max_queue_pairs, settings.curr_queue_pairs) == (4, 3)


async def test_a_single_queue_pair(program: str) -> None:
    async with driven(Options(qemu=program, queue_pairs=1)) as (qemu, driver):
        assert await driver.send(MQ_VQ_PAIRS_SET + struct.pack("<H", 1)) == REFUSED
        assert await driver.send(vlan_add(9)) == OK
        settings = await qemu.settings()
        assert (settings.max_queue_pairs, settings.curr_queue_pairs) == (1, 1)
        assert settings.vlans == {9}


async def test_rss(program: str) -> None:
    table = struct.pack("<IHH4HH", IPV4_TCPV4, 3, 2, 0, 1, 2, 3, 4)
    async with driven(Options(qemu=program, device_properties="rss=on")) as (qemu, driver):
        assert qemu.config.rss_max_key_size == len(KEY)
        assert qemu.config.rss_max_indirection_table_length == 128
        assert await driver.send(MQ_RSS_CONFIG + table + bytes([len(KEY)]) + KEY) == OK
        settings = await qemu.settings()
    assert settings.rss == RssSettings(
        redirect=True,
        populate_hash=False,
        hash_types=IPV4_TCPV4,
        indirection_table=(0, 1, 2, 3),
        default_queue=2,
        key=KEY,
    )
    assert settings.curr_queue_pairs == 4


async def test_hash_report(program: str) -> None:
    hash_config = struct.pack("<I4HB", IPV4_TCPV4, 0, 0, 0, 0, len(KEY)) + KEY
    async with driven(Options(qemu=program, device_properties="hash=on")) as (qemu, driver):
        assert await driver.send(MQ_HASH_CONFIG + hash_config) == OK
        rss = (await qemu.settings()).rss
    assert rss is not None
    assert (rss.redirect, rss.populate_hash) == (False, True)
    assert (rss.hash_types, rss.key) == (IPV4_TCPV4, KEY)


async def test_guest_offloads(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, driver):
        assert await driver.send(GUEST_OFFLOADS_SET + struct.pack("<Q", CSUM_AND_TSO4)) == OK
        settings = await qemu.settings()
    assert settings.guest_offloads == CSUM_AND_TSO4
    assert settings.rss is None


@pytest.mark.parametrize("without", [frozenset(), frozenset({RING_EVENT_IDX})])
async def test_doorbells_and_interrupts(program: str, without: frozenset[int]) -> None:
    async with driven(Options(qemu=program, without=without)) as (qemu, driver):
        for vid in range(500):
            assert await driver.send(vlan_add(vid)) == OK
        assert (RING_EVENT_IDX in qemu.features) == (not without)
        assert qemu.kicks == qemu.doorbells == 500
        # One that comes while the one before is acknowledged is one with it.
        assert 0 < qemu.interrupts <= 500


@pytest.mark.parametrize("ring_size", [2, 64])
async def test_ring_sizes(program: str, ring_size: int) -> None:
    await try_ring(program, ring_size)


@pytest.mark.parametrize("program", [BOOKWORM, TRIXIE], ids=str, indirect=True)
@pytest.mark.parametrize("ring_size", [256, 1024])
async def test_rings_larger_than_at_reset(program: str, ring_size: int) -> None:
    await try_ring(program, ring_size)


@pytest.mark.parametrize("program", [TRIXIE_BACKPORTS], ids=str, indirect=True)
async def test_qemu_11_takes_no_ring_larger_than_at_reset(program: str) -> None:
    with pytest.raises(StartError, match=r"queue 8, of 64 at reset, doesn't take 128"):
        await try_ring(program, 128)


async def try_ring(program: str, ring_size: int) -> None:
    async with driven(Options(qemu=program, ring_size=ring_size)) as (qemu, driver):
        assert qemu.lend.ring_size == ring_size
        for vid in range(5):
            assert await driver.send(vlan_add(vid)) == OK
        assert (await qemu.rx_filter()).vlan_table == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("without", [frozenset(), frozenset({RING_EVENT_IDX})])
async def test_the_index_may_start_anywhere(program: str, without: frozenset[int]) -> None:
    options = Options(qemu=program, start_index=65534, without=without)
    async with driven(options) as (qemu, driver):
        assert indices(qemu.lend) == (65534, 65534)
        assert (qemu.doorbells, qemu.interrupts) == (0, 0)
        for vid in range(5):
            assert await driver.send(vlan_add(vid)) == OK
        assert indices(qemu.lend) == (3, 3)
        assert (await qemu.rx_filter()).vlan_table == (0, 1, 2, 3, 4)


async def test_what_is_lent() -> None:
    async with guestless() as qemu:
        lend = qemu.lend
        assert fcntl.fcntl(lend.memory_fd, F_GET_SEALS) & F_SEAL_SHRINK
        assert os.fstat(lend.memory_fd).st_size == lend.memory_size
        assert lend.buffers_iova + lend.buffers_size <= lend.memory_iova + lend.memory_size
        with mmap.mmap(lend.memory_fd, lend.memory_size) as memory:
            end = lend.used + 6 + 8 * lend.ring_size
            assert not any(memory[lend.descriptors : end])
            assert not any(memory[lend.buffers_iova : lend.buffers_iova + lend.buffers_size])


async def test_exactly_the_features_asked_for(program: str) -> None:
    wanted = frozenset({CTRL_VQ, VERSION_1})
    async with driven(Options(qemu=program, negotiate=wanted)) as (qemu, driver):
        assert qemu.features == wanted < qemu.offered
        assert qemu.config.max_virtqueue_pairs == 1
        assert await driver.send(MQ_VQ_PAIRS_SET + struct.pack("<H", 1)) == REFUSED
        settings = await qemu.settings()
    assert settings.features == 1 << CTRL_VQ | 1 << VERSION_1
    assert settings.guest_offloads is None


async def test_a_feature_that_is_not_offered() -> None:
    with pytest.raises(StartError, match=r"offer these features: \[63\]"):
        async with guestless(Options(negotiate=frozenset({CTRL_VQ, VERSION_1, SPEED_DUPLEX}))):
            pass


async def test_nothing_is_left_behind() -> None:
    before = open_descriptors()
    async with driven() as (qemu, driver):
        pid = qemu.pid
        assert await driver.send(vlan_add(1)) == OK
        await qemu.settings()
    assert open_descriptors() == before
    assert not runs(pid)


async def test_nothing_is_left_behind_by_a_failing_test() -> None:
    async def fail() -> None:
        async with guestless() as qemu:
            pids.append(qemu.pid)
            raise RuntimeError("in the middle")

    before = open_descriptors()
    pids: list[int] = []
    with pytest.raises(RuntimeError, match="in the middle"):
        await fail()
    assert open_descriptors() == before
    assert not runs(pids[0])


async def test_nothing_is_left_behind_by_a_cancelled_start() -> None:
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), guestless():
            await asyncio.sleep(1)
    assert open_descriptors() == before


async def test_a_start_that_fails_says_what_qemu_said() -> None:
    before = open_descriptors()
    with pytest.raises(StartError, match=r"Property 'virtio-net-pci\.nosuch' not found"):
        async with guestless(Options(device_properties="nosuch=on")):
            pass
    assert open_descriptors() == before


async def test_unavailable_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = sys.modules[guestless.__module__]
    monkeypatch.setattr(harness, "why_unavailable", lambda: "no tap today")
    with pytest.raises(Unavailable, match="no tap today"):
        async with guestless():
            pass


async def test_a_device_that_dies_is_seen() -> None:
    async with guestless() as qemu:
        await qemu.qmp.execute("quit")
        with pytest.raises(ConnectionError):
            await qemu.qtest.readl(0)
        with pytest.raises(ConnectionError):
            await qemu.rx_filter()


async def test_a_truncated_stream_is_refused(program: str) -> None:
    async with guestless(Options(qemu=program)) as qemu:
        stream = await qemu.stream()
    assert {"virtio-net", "i8259"} <= {state.kind for state in device_states(stream)}
    for length in range(0, len(stream), len(stream) // 50):
        with pytest.raises(StreamError):
            read_net_settings(stream[:length])
