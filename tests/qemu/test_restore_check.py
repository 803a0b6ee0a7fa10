"""`check` says beforehand what `restore` then does, and touches nothing."""

from __future__ import annotations

import pytest

from vdpad.client import Client
from vdpad.virtio.features import Feature

from .driver import indices
from .guestless import Options, guestless
from .lender import Json, assert_restored, lent_target, refused, restore
from .states import (
    EVERYTHING,
    EVERYTHING_COMMANDS,
    KEY,
    RSS,
    TOGETHER,
    Sample,
    mac,
    state_of,
)

SAMPLES = TOGETHER | {"everything": EVERYTHING, "one": mac("52:54:00:00:00:99")}


@pytest.mark.parametrize("ring_size", [8, 64])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
async def test_restore_does_what_check_says(
    vdpad: Client, sample: Sample, ring_size: int, without: frozenset[int]
) -> None:
    options = Options(ring_size=ring_size, without=without, device_properties=sample.properties)
    async with guestless(options) as qemu:
        state, target = state_of(qemu, sample.parts), lent_target(qemu)
        checked = await vdpad.check(state, target)
        assert (checked["compatible"], checked["problems"]) == (True, [])
        assert sum(run["count"] for run in checked["plan"]) == checked["commands"]
        assert (qemu.kicks, indices(qemu.lend)) == (0, (0, 0))
        report = await restore(vdpad, qemu, state, target)
        assert_restored(report, qemu, checked["commands"])
        assert report["doorbells"] <= checked["doorbells"]
        assert report["widened"] == checked["widened"] == []
    if without:
        assert report["doorbells"] == checked["doorbells"]


async def test_the_plan_in_its_order(vdpad: Client) -> None:
    async with guestless(Options(device_properties="rss=on")) as qemu:
        checked = await vdpad.check(state_of(qemu, EVERYTHING.parts), lent_target(qemu))
    assert checked["commands"] == EVERYTHING_COMMANDS
    assert [(run["command"], run["count"]) for run in checked["plan"]] == [
        ("MAC_ADDR_SET", 1),
        ("MQ_VQ_PAIRS_SET", 1),
        ("MQ_RSS_CONFIG", 1),
        ("GUEST_OFFLOADS_SET", 1),
        ("VLAN_ADD", 4094),
        ("MAC_TABLE_SET", 1),
        ("RX_NOUNI", 1),
        ("RX_ALLUNI", 1),
        ("RX_NOBCAST", 1),
        ("RX_NOMULTI", 1),
        ("RX_ALLMULTI", 1),
        ("RX_PROMISC", 1),
    ]


def rss(**changes: object) -> Json:
    """The parts of an RSS sample, some of them changed."""
    return {"rss": {**RSS.parts["rss"], **changes}}


WOULD_BE_SEEN: Json = {"rx": {"promisc": False}}
PLAIN, WITH_RSS = Options(), Options(device_properties="rss=on")
INCOMPATIBLE: dict[str, tuple[Options, Json, tuple[str, ...], set[tuple[str, str]]]] = {
    "queue-pairs": (PLAIN, {"queue_pairs": 5}, (), {("queue_pairs", "out-of-range")}),
    "rss-length": (
        WITH_RSS,
        rss(indirection_table=[0] * 256),
        (),
        {("rss.indirection_table", "too-long")},
    ),
    "rss-key": (WITH_RSS, rss(key=(KEY + b"!").hex()), (), {("rss.key", "too-long")}),
    "rss-queues": (
        WITH_RSS,
        rss(indirection_table=[0, 4], max_tx_queues=4, unclassified_queue=9),
        (),
        {
            ("rss.indirection_table.1", "out-of-range"),
            ("rss.unclassified_queue", "out-of-range"),
        },
    ),
    "rss-at-all": (
        PLAIN,
        rss(),
        ("RSS",),
        {("features", "missing-feature"), ("rss", "missing-feature")},
    ),
    "hash-types": (
        WITH_RSS,
        rss(hash_types=["IPv4", "bit_20"]),
        (),
        {("rss.hash_types", "unsupported")},
    ),
    "a-feature-by-itself": (PLAIN, {}, ("RSC_EXT",), {("features", "missing-feature")}),
    "mac": (
        Options(without=frozenset({Feature.CTRL_MAC_ADDR})),
        {"mac": "52:54:00:00:00:99"},
        ("CTRL_MAC_ADDR",),
        {("features", "missing-feature"), ("mac", "missing-feature")},
    ),
    "rx-extra": (
        Options(without=frozenset({Feature.CTRL_RX_EXTRA})),
        {"rx": {"promisc": False, "nouni": True}},
        ("CTRL_RX_EXTRA",),
        {("features", "missing-feature"), ("rx.nouni", "missing-feature")},
    ),
    "several": (
        Options(without=frozenset({Feature.CTRL_VLAN})),
        {"queue_pairs": 6, "vlans": [1], "coalescing": {"rx": {"max_packets": 1, "max_usecs": 1}}},
        ("CTRL_VLAN", "NOTF_COAL"),
        {
            ("features", "missing-feature"),
            ("vlans", "missing-feature"),
            ("queue_pairs", "out-of-range"),
            ("coalescing.rx", "missing-feature"),
        },
    ),
}


@pytest.mark.parametrize(
    ("options", "parts", "guest_features", "problems"), INCOMPATIBLE.values(), ids=INCOMPATIBLE
)
async def test_what_is_incompatible_reaches_no_device(
    vdpad: Client,
    options: Options,
    parts: Json,
    guest_features: tuple[str, ...],
    problems: set[tuple[str, str]],
) -> None:
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        state = state_of(qemu, WOULD_BE_SEEN | parts, guest_features)
        checked = await vdpad.check(state, lent_target(qemu))
        assert not checked["compatible"]
        assert (checked["commands"], checked["doorbells"], checked["plan"]) == (0, 0, [])
        assert {(each["path"], each["code"]) for each in checked["problems"]} == problems
        refusal = await refused(vdpad, qemu, state)
        assert (refusal.code, refusal.kind) == (-32001, "incompatible")
        assert refusal.data["problems"] == checked["problems"]
        assert (qemu.kicks, indices(qemu.lend)) == (0, (0, 0))
        assert await qemu.rx_filter() == before
