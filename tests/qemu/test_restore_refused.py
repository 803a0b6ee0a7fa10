# How QEMU's device is brought to refuse
#
# vdpad plans no command that the target's features and config don't permit, so a lender lies here:
# it claims a feature that was not negotiated, or larger limits than the device has. QEMU 7.2 then
# refuses the commands of classes 4 (queue pairs, RSS, hash), 5 (offloads) and 6 (coalescing, which
# it does not know at all). It does *not* look at the features for MAC_ADDR_SET, for the receive
# modes and for VLANs: it takes those in any case (tried). The plan sends classes 4 to 6 after the
# MAC address and before VLANs, MAC table and modes; what is to be refused last needs a state
# without these.
"""Commands that QEMU's device refuses: the report names exactly those, and the others arrive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Options, guestless
from .lender import (
    Json,
    assert_handed_back,
    lent_target,
    migration,
    refused,
    restore,
)
from .states import (
    KEY,
    RSS,
    RX_MODES,
    Sample,
    guest_offloads,
    mac,
    mac_table,
    multicast_macs,
    queue_pairs,
    rx,
    settings_at_reset,
    state_of,
    unicast_macs,
    vlans,
)

COALESCING = {
    "tx": {"max_packets": 64, "max_usecs": 100},
    "rx": {"max_packets": 32, "max_usecs": 50},
    "queues": {
        "10": {"max_packets": 1, "max_usecs": 2},
        "0": {"max_packets": 16, "max_usecs": 25},
        "7": {"max_packets": 4294967295, "max_usecs": 0},
    },
}
COALESCING_NAMES = ("NOTF_COAL", "VQ_NOTF_COAL")
COALESCING_REFUSED = (
    ("NOTF_COAL_TX_SET", "max_packets=64 max_usecs=100"),
    ("NOTF_COAL_RX_SET", "max_packets=32 max_usecs=50"),
    ("NOTF_COAL_VQ_SET", "queue=0 max_packets=16 max_usecs=25"),
    ("NOTF_COAL_VQ_SET", "queue=7 max_packets=4294967295 max_usecs=0"),
    ("NOTF_COAL_VQ_SET", "queue=10 max_packets=1 max_usecs=2"),
)
OFFLOADS = guest_offloads(1 << 1 | 1 << 7, "GUEST_CSUM", "GUEST_TSO4")
TAIL = (
    vlans([[1, 100]], frozenset(range(1, 101)))
    | mac_table(unicast_macs(3), multicast_macs(4))
    | rx(**dict.fromkeys(RX_MODES, False))
)
"""What the plan sends at the end."""
TAIL_COMMANDS = 100 + 1 + 6


@dataclass(frozen=True)
class Lie:
    """A state, what its lender claims, and what the device refuses of it."""

    applied: Sample
    """What arrives all the same."""
    refused: Json
    """The parts that don't."""
    lines: tuple[tuple[int, str, str], ...]
    """Index, command and arguments of each refused one."""
    commands: int
    claimed: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    options: Options = field(default_factory=Options)


def lines(first: int, *refusals: tuple[str, str]) -> tuple[tuple[int, str, str], ...]:
    """Number commands that follow each other."""
    return tuple((first + at, *refusal) for at, refusal in enumerate(refusals))


RSS_SHOWN = "hash_types=IPv4, TCPv6, UDP_EX table={} unclassified_queue=1 max_tx_queues=3 key={}"

LIES = {
    "first": Lie(
        applied=OFFLOADS | TAIL,
        refused={"queue_pairs": 5},
        lines=((0, "MQ_VQ_PAIRS_SET", "pairs=5"),),
        commands=2 + TAIL_COMMANDS,
        config={"max_virtqueue_pairs": 8},
    ),
    "first-without-the-feature": Lie(
        applied=OFFLOADS | TAIL,
        refused={"queue_pairs": 2},
        lines=((0, "MQ_VQ_PAIRS_SET", "pairs=2"),),
        commands=2 + TAIL_COMMANDS,
        claimed=("MQ",),
        config={"max_virtqueue_pairs": 4},
        options=Options(without=frozenset({Feature.MQ})),
    ),
    "middle": Lie(
        applied=mac("52:54:00:00:00:99") | OFFLOADS | TAIL,
        refused={"coalescing": COALESCING},
        lines=lines(2, *COALESCING_REFUSED),
        commands=2 + 5 + TAIL_COMMANDS,
        claimed=COALESCING_NAMES,
        config={"max_virtqueue_pairs": 8},
    ),
    "middle-rss-table": Lie(
        applied=mac("52:54:00:00:00:99") | TAIL,
        refused={"rss": {**RSS.parts["rss"], "indirection_table": [2, 1] * 128}},
        lines=((1, "MQ_RSS_CONFIG", RSS_SHOWN.format(256, 40)),),
        commands=2 + TAIL_COMMANDS,
        config={"rss_max_indirection_table_length": 256},
        options=Options(device_properties="rss=on"),
    ),
    "middle-rss-key": Lie(
        applied=mac("52:54:00:00:00:99") | TAIL,
        refused={"rss": {**RSS.parts["rss"], "key": (KEY + b"!").hex()}},
        lines=((1, "MQ_RSS_CONFIG", RSS_SHOWN.format(128, 41)),),
        commands=2 + TAIL_COMMANDS,
        config={"rss_max_key_size": 41},
        options=Options(device_properties="rss=on"),
    ),
    "middle-hash-report": Lie(
        applied=mac("52:54:00:00:00:99") | queue_pairs(2) | TAIL,
        refused={"hash_report": {"hash_types": ["IPv6"], "key": KEY.hex()}},
        lines=((2, "MQ_HASH_CONFIG", "hash_types=IPv6 key=40"),),
        commands=3 + TAIL_COMMANDS,
        claimed=("HASH_REPORT",),
        config={"rss_max_key_size": 40, "supported_hash_types": ["IPv6"]},
    ),
    "middle-offloads": Lie(
        applied=mac("52:54:00:00:00:99") | TAIL,
        refused={"guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"]},
        lines=((1, "GUEST_OFFLOADS_SET", "offloads=GUEST_CSUM, GUEST_TSO4"),),
        commands=2 + TAIL_COMMANDS,
        claimed=("GUEST_TSO4",),
        options=Options(without=frozenset({Feature.GUEST_TSO4})),
    ),
    "last": Lie(
        applied=mac("52:54:00:00:00:99") | queue_pairs(3) | OFFLOADS,
        refused={"coalescing": {"rx": {"max_packets": 32, "max_usecs": 50}}},
        lines=((3, "NOTF_COAL_RX_SET", "max_packets=32 max_usecs=50"),),
        commands=4,
        claimed=("NOTF_COAL",),
    ),
    "the-only-one": Lie(
        applied=Sample({}),
        refused={"queue_pairs": 5},
        lines=((0, "MQ_VQ_PAIRS_SET", "pairs=5"),),
        commands=1,
        config={"max_virtqueue_pairs": 5},
    ),
    "many": Lie(
        applied=mac("52:54:00:00:00:99") | TAIL,
        refused={
            "queue_pairs": 6,
            "guest_offloads": ["GUEST_TSO6"],
            "coalescing": COALESCING,
        },
        lines=lines(
            1,
            ("MQ_VQ_PAIRS_SET", "pairs=6"),
            ("GUEST_OFFLOADS_SET", "offloads=GUEST_TSO6"),
            *COALESCING_REFUSED,
        ),
        commands=1 + 2 + 5 + TAIL_COMMANDS,
        claimed=("CTRL_GUEST_OFFLOADS", *COALESCING_NAMES),
        config={"max_virtqueue_pairs": 6},
        options=Options(without=frozenset({Feature.CTRL_GUEST_OFFLOADS})),
    ),
}


@pytest.mark.parametrize("ring_size", [2, 64])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_the_refused_are_named_and_the_others_arrive(
    vdpad: Client, lie: Lie, ring_size: int
) -> None:
    options = replace(lie.options, ring_size=ring_size)
    at_reset = await settings_at_reset(options)
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        target = lent_target(qemu, claimed=lie.claimed, config=lie.config)
        state = state_of(qemu, lie.applied.parts | lie.refused, lie.claimed)
        refusal = await refused(vdpad, qemu, state, target)
        assert (refusal.code, refusal.kind) == (-32005, "rejected")
        report = refusal.data["report"]
        assert report["outcome"] == "rejected"
        assert report["commands"] == lie.commands
        assert report["rejected"] == [
            {"index": index, "command": command, "arguments": arguments, "ack": 1}
            for index, command, arguments in lie.lines
        ]
        assert report["rejected_total"] == len(lie.lines)
        assert report["applied"] == lie.commands - len(lie.lines)
        assert (report["unanswered"], report["unanswered_total"]) == ([], 0)
        assert_handed_back(report, qemu)
        assert await qemu.rx_filter() == replace(before, **lie.applied.shown)
        assert await qemu.settings() == replace(at_reset, **lie.applied.streamed)


async def test_more_refusals_than_a_report_has_lines(
    vdpad: Client, without: frozenset[int]
) -> None:
    queues = 128
    coalescing = {str(queue): {"max_packets": queue, "max_usecs": 0} for queue in range(queues)}
    async with guestless(Options(ring_size=16, without=without)) as qemu:
        claimed = ("VQ_NOTF_COAL",)
        target = lent_target(qemu, claimed=claimed, config={"max_virtqueue_pairs": queues // 2})
        parts = {**TAIL.parts, "coalescing": {"queues": coalescing}}
        refusal = await refused(vdpad, qemu, state_of(qemu, parts, claimed), target)
        report = refusal.data["report"]
        assert [line["index"] for line in report["rejected"]] == list(range(64))
        assert report["rejected"][63]["arguments"] == "queue=63 max_packets=63 max_usecs=0"
        assert report["rejected_total"] == queues
        assert report["applied"] == TAIL_COMMANDS
        assert_handed_back(report, qemu)
        assert (await qemu.rx_filter()).vlan_table == tuple(range(1, 101))


async def test_a_refusal_is_remembered_and_the_ring_is_good_for_more(vdpad: Client) -> None:
    lie = LIES["middle"]
    async with guestless(lie.options) as qemu:
        name = migration()
        target = lent_target(qemu, claimed=lie.claimed, config=lie.config)
        state = state_of(qemu, lie.applied.parts | lie.refused, lie.claimed)
        first = await refused(vdpad, qemu, state, target, name=name)
        kicks = qemu.kicks
        again = await refused(vdpad, qemu, state, target, name=name)
        assert (again.code, str(again), again.data) == (first.code, str(first), first.data)
        assert qemu.kicks == kicks
        status = await vdpad.status(name)
        assert (status["state"], status["report"]) == ("failed", first.data["report"])
        report = await restore(vdpad, qemu, state_of(qemu, mac("52:54:00:00:00:77").parts))
        assert report["outcome"] == "restored"
        assert (await qemu.rx_filter()).main_mac == "52:54:00:00:00:77"
