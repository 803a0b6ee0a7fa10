"""Every QEMU, on every machine: its device takes commands by interrupt, and both judges agree."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from .driver import driven
from .guestless import Options
from .net_settings import (
    CAPABILITY_MSIX,
    CAPABILITY_PCIE,
    NetSettings,
    RssSettings,
    pci_capabilities,
)
from .qmp import RxFilter
from .stream import VIRTIO_NET, device_states, read_net_settings
from .versions import BOOKWORM, SYSTEM, TRIXIE_BACKPORTS, why_unavailable

MAC = "52:54:00:aa:bb:cc"
UNICAST, MULTICAST = "52:54:00:00:00:07", "01:00:5e:00:00:01"
VLANS = (0, 5, 4095)
RSS = RssSettings(
    redirect=True,
    populate_hash=True,
    hash_types=0b11,
    indirection_table=(0, 1, 2, 3),
    default_queue=2,
    key=bytes(range(40)),
)
GUEST_CSUM_AND_TSO4 = 1 << 1 | 1 << 7
UDP_TUNNEL_GSO = frozenset({65, 66, 67, 68})
PCI_CONFIG = slice(4, 4 + 256)
ICH9 = "ICH9LPC"


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


COMMANDS = {
    "MAC_ADDR_SET": b"\x01\x01" + packed(MAC),
    "RSS_CONFIG": b"\x04\x01"
    + struct.pack("<IHH4HH", RSS.hash_types, 3, RSS.default_queue, *RSS.indirection_table, 4)
    + bytes([len(RSS.key)])
    + RSS.key,
    "GUEST_OFFLOADS_SET": b"\x05\x00" + struct.pack("<Q", GUEST_CSUM_AND_TSO4),
    **{f"VLAN_ADD {vid}": b"\x02\x00" + struct.pack("<H", vid) for vid in VLANS},
    "MAC_TABLE_SET": b"\x01\x00" + struct.pack("<I6sI6s", 1, packed(UNICAST), 1, packed(MULTICAST)),
    "RX_NOBCAST": b"\x00\x05\x01",
    "RX_ALLMULTI": b"\x00\x01\x01",
    "RX_PROMISC off": b"\x00\x00\x00",
}
SHOWN = RxFilter(
    name="virtio-net-pci.0",
    promiscuous=False,
    main_mac=MAC,
    unicast="normal",
    multicast="all",
    vlan="normal",
    nobcast=True,
    unicast_overflow=False,
    multicast_overflow=False,
    unicast_table=(UNICAST,),
    multicast_table=(MULTICAST,),
    vlan_table=VLANS,
)


def streamed(features: frozenset[int]) -> NetSettings:
    """What a stream says after COMMANDS."""
    return NetSettings(
        mac=MAC,
        promisc=False,
        allmulti=True,
        alluni=False,
        nomulti=False,
        nouni=False,
        nobcast=True,
        unicast=(UNICAST,),
        multicast=(MULTICAST,),
        uni_overflow=False,
        multi_overflow=False,
        vlans=frozenset(VLANS),
        max_queue_pairs=4,
        curr_queue_pairs=4,
        guest_offloads=GUEST_CSUM_AND_TSO4,
        rss=RSS,
        features=sum(1 << bit for bit in features),
    )


@pytest.mark.parametrize("vectors", [0, 10], ids=["intx-only", "msix"])
@pytest.mark.parametrize(
    ("machine", "root_port"),
    [("pc", False), ("q35", False), ("q35", True)],
    ids=["pc", "q35", "root-port"],
)
async def test_the_device_takes_commands_and_both_judges_agree(
    program: str, machine: str, root_port: bool, vectors: int
) -> None:
    options = Options(
        qemu=program,
        machine=machine,
        root_port=root_port,
        vectors=vectors,
        device_properties="rss=on,hash=on",
    )
    async with driven(options) as (qemu, driver):
        for name, command in COMMANDS.items():
            assert await driver.send(command) == 0, name
        assert 0 < qemu.interrupts <= len(COMMANDS)
        assert await qemu.rx_filter() == SHOWN
        stream = await qemu.stream()
    assert read_net_settings(stream) == streamed(qemu.features)

    devices = {state.kind: state for state in device_states(stream)}
    capabilities = pci_capabilities(devices[VIRTIO_NET].body[PCI_CONFIG])
    assert (ICH9 in devices) == (machine == "q35")
    assert (CAPABILITY_MSIX in capabilities) == (vectors > 0)
    assert (CAPABILITY_PCIE in capabilities) == root_port


async def test_what_a_device_comes_up_with(program: str) -> None:
    async with driven(Options(qemu=program)) as (qemu, _):
        shown = await qemu.rx_filter()
        found = await qemu.settings()
    assert found.mac == shown.main_mac == Options().mac
    assert (found.promisc, found.nobcast) == (shown.promiscuous, shown.nobcast) == (True, False)
    assert (found.unicast, found.multicast, found.vlans) == ((), (), frozenset())
    assert (shown.unicast_table, shown.multicast_table, shown.vlan_table) == ((), (), ())
    assert found.rss is None


@pytest.mark.parametrize("program", [TRIXIE_BACKPORTS], ids=str, indirect=True)
@pytest.mark.parametrize("without", [frozenset(), UDP_TUNNEL_GSO], ids=["with", "without"])
async def test_features_from_64_on(program: str, without: frozenset[int]) -> None:
    """QEMU 11.1 has them where the tap of this host has them, as of Linux 6.18."""
    async with driven(Options(qemu=program, without=without)) as (qemu, _):
        offered = frozenset(bit for bit in qemu.offered if bit >= 64)
        assert offered in (frozenset(), UDP_TUNNEL_GSO)
        settings = await qemu.settings()
    assert settings.features >> 64 == sum(1 << bit - 64 for bit in offered - without)


def test_why_a_suite_has_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.qemu.versions.CACHE", tmp_path)
    assert why_unavailable(SYSTEM) is None
    assert why_unavailable(BOOKWORM) == "no QEMU of bookworm: run `make test`"
    (tmp_path / "no-qemu-bookworm").write_text("no network\n")
    assert why_unavailable(BOOKWORM) == "no QEMU of bookworm: no network"
    (tmp_path / "qemu-bookworm").mkdir()
    (tmp_path / "qemu-bookworm" / "ready").touch()
    assert why_unavailable(BOOKWORM) is None
