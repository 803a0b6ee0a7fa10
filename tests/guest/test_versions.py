"""The guest on other QEMUs than this machine's, and their ways of writing guest memory."""

from __future__ import annotations

import pytest

from tests.qemu.states import unicast_macs
from tests.qemu.versions import BOOKWORM, TRIXIE, TRIXIE_BACKPORTS, Version
from vdpad.virtio.config import HashType

from .machine import Guest
from .states import SLOTS, found_by_place, found_in, hash_types_of, packed, state_of, table_of

VERSIONS = pytest.mark.parametrize(
    "of_version",
    [BOOKWORM, TRIXIE, TRIXIE_BACKPORTS],
    ids=str,
    indirect=True,
)
LAYOUTS: dict[Version, list[tuple[str, ...]]] = {
    BOOKWORM: [("x-ignore-shared",)],
    TRIXIE: [
        ("x-ignore-shared",),
        ("mapped-ram",),
        ("mapped-ram", "multifd"),
        ("mapped-ram", "x-ignore-shared"),
    ],
    TRIXIE_BACKPORTS: [("mapped-ram",), ("mapped-ram", "x-ignore-shared")],
}
TOLD = {"x-ignore-shared", "mapped-ram"}
"""Capabilities that a stream tells in its configuration."""
PAGES = {BOOKWORM: ["compress", "xbzrle"], TRIXIE: ["xbzrle"], TRIXIE_BACKPORTS: ["xbzrle"]}
COUNTED = {"compress": "compression", "xbzrle": "xbzrle-cache"}
"""Where QEMU counts the pages that a capability wrote in its way."""

# So much that memory is gone through more than twice, which XBZRLE needs, in about a second.
BYTES_PER_SECOND = 50_000_000
CACHE_BYTES = 128 << 20


@VERSIONS
def test_everything_at_once(of_version: Guest) -> None:
    guest = of_version
    for name in SLOTS:
        state_of(guest, name)
    guest.run(
        *(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in (5, 4094)),
        "ip link delete eth0.5",
        "ip link set eth0 address 52:54:00:99:99:99 allmulticast on",
        *(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(3)),
        "ip maddr add 33:33:00:00:99:99 dev eth0",
        "ethtool -L eth0 combined 3",
        "ethtool -X eth0 weight 1 2 1",
        "ethtool -K eth0 rx-gro-hw off rxhash on",
        "ethtool -N eth0 rx-flow-hash udp6 sd",
    )
    state = state_of(guest, gone=(5,))
    assert (state.mac, state.queue_pairs) == (bytes.fromhex("525400999999"), 3)
    assert set(table_of(state).unicast) == packed(unicast_macs(3))
    assert HashType.UDPv6 not in hash_types_of(state)


@VERSIONS
def test_memory_laid_out_otherwise(of_version: Guest) -> None:
    plain = found_in(of_version)
    for capabilities in LAYOUTS[of_version.qemu]:
        with of_version.stream(*capabilities) as stream:
            head = stream.read(128)
            stream.seek(0)
            assert found_by_place(stream) == plain, capabilities
        assert {each for each in TOLD if each.encode() in head} == TOLD & set(capabilities)


@VERSIONS
def test_pages_written_otherwise(of_version: Guest) -> None:
    plain = found_in(of_version)
    of_version.qmp(
        "migrate-set-parameters",
        max_bandwidth=BYTES_PER_SECOND,
        xbzrle_cache_size=CACHE_BYTES,
        downtime_limit=1,
    )
    of_version.run("(while :; do seq 20000 > /tmp/pages; usleep 1000; done) & echo $! > /tmp/pid")
    for capability in PAGES[of_version.qemu]:
        with of_version.stream(capability) as stream:
            assert found_by_place(stream) == plain, capability
            assert of_version.qmp("query-migrate")[COUNTED[capability]]["pages"] > 0
    of_version.run("kill $(cat /tmp/pid)")
