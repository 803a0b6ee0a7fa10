"""That each case passes on a device that behaves, and does not on one that is wrong its way."""

from collections.abc import Iterable
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

import pytest

from tests.conformance import bad_devices
from tests.conformance.bad_devices import every_second_life, of_class, with_net
from vdpad.conformance.case import CaseOutcome, Level, Verdict
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.device_under_test import DeviceUnderTest
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.conformance.suite import SuiteStage, run
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature

BEHAVES = SoftwareConfig()
LITTLE = SoftwareConfig(
    features=frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.VERSION_1}),
    ring_size=4,
)


def on_ring(*features: Feature, **more: Any) -> SoftwareConfig:
    """A device that behaves, on another ring."""
    return replace(BEHAVES, features=BEHAVES.features | {*features}, **more)


async def outcomes(
    device: DeviceUnderTest, ids: Iterable[str], seconds: float = 5.0
) -> dict[str, CaseOutcome]:
    """What these cases come to."""
    cases = [CASES[each] for each in ids]
    done = await run(device, cases, rounds=1, stage=SuiteStage(), max_seconds=seconds)
    return {each.case.id: each for each in done.cases}


def of(*patterns: str) -> list[str]:
    """The ids of cases that one of the patterns fits."""
    return [id_ for id_ in CASES if any(fnmatchcase(id_, each) for each in patterns)]


def found(outcome: CaseOutcome) -> bool:
    """Whether it is found, as the case's level has it."""
    wanted = Verdict.FAIL if outcome.case.level is Level.MUST else Verdict.NOTE
    return outcome.verdict is wanted and bool(outcome.seen)


# --- that they pass ---


async def test_a_device_that_behaves_passes_all_that_it_can_be_asked() -> None:
    done = await outcomes(SoftwareUnderTest("sim0", BEHAVES), CASES)
    assert [each for each in done.values() if each.verdict in (Verdict.FAIL, Verdict.NOTE)] == []
    others = {id_: each for id_, each in done.items() if each.verdict is not Verdict.PASS}
    assert set(others) == {"not-negotiated"}
    assert all(each.seen for each in others.values())


@pytest.mark.parametrize(
    "config",
    [
        LITTLE,
        replace(BEHAVES, start_index=0xFFF0),
        on_ring(Feature.IN_ORDER),
        on_ring(Feature.RING_PACKED),
        on_ring(Feature.RING_PACKED, start_index=63),
        on_ring(Feature.RING_PACKED, ring_size=63),
        on_ring(Feature.RING_PACKED, Feature.IN_ORDER),
    ],
    ids=["little", "late", "in-order", "packed", "late-packed", "odd-packed", "packed-in-order"],
)
async def test_others_that_behave_pass_too(config: SoftwareConfig) -> None:
    done = await outcomes(SoftwareUnderTest("sim0", config), set(CASES) - {"ring.index-wrap"})
    assert [each for each in done.values() if each.verdict in (Verdict.FAIL, Verdict.NOTE)] == []
    lacking = frozenset(Feature) - config.features
    for each in done.values():
        assert each.case.needs.isdisjoint(lacking) or each.verdict is Verdict.NOT_APPLICABLE


async def test_a_device_that_tells_a_queue_s_coalescing_passes_too() -> None:
    done = await outcomes(SoftwareUnderTest("sim0", BEHAVES), COALESCING)
    assert {each.verdict for each in done.values()} == {Verdict.PASS}


# --- the ways to misbehave that a software device has ---

COALESCING = of("reset.coalescing", "notf-coal-vq-get.same", "notf-coal-vq-get.last")
COALESCING += of("notf-coal-vq-set.reserved")

FOUND_BY: dict[str, tuple[Misbehaviour, str]] = {
    **{
        fault.value: (Misbehaviour(faults={at: fault}), case)
        for fault, at, case in (
            (Fault.ERR, 0, "mac-addr-set.taken"),
            (Fault.SILENCE, 3, "used.all"),
            (Fault.ID_OUT_OF_RANGE, 3, "used.id"),
            (Fault.ID_NOT_IN_FLIGHT, 3, "used.id"),
            (Fault.ID_TWICE, 3, "used.once"),
            (Fault.RUN_AHEAD, 3, "used.index"),
            (Fault.WRONG_LENGTH, 3, "used.length"),
            (Fault.STALE_ACK, 3, "ack.written"),
            (Fault.STRANGE_ACK, 3, "ack.known"),
        )
    },
    **{
        order.value: (Misbehaviour(order=order), "used.order")
        for order in (Order.REVERSED, Order.SHUFFLED)
    },
    "seconds_a_command": (Misbehaviour(seconds_a_command=1.0), "used.all"),
    "interrupts": (Misbehaviour(interrupts=False), "interrupt"),
}


@pytest.mark.parametrize(
    "ring",
    [(), (Feature.RING_PACKED,), (Feature.IN_ORDER,), (Feature.RING_PACKED, Feature.IN_ORDER)],
    ids=["split", "packed", "in-order", "packed-in-order"],
)
@pytest.mark.parametrize("way", FOUND_BY)
async def test_each_way_to_misbehave_is_found_by_its_case(
    way: str, ring: tuple[Feature, ...]
) -> None:
    misbehaviour, case = FOUND_BY[way]
    if set(ring) == {Feature.RING_PACKED, Feature.IN_ORDER} and case == "used.order":
        # The device tells of its first command as the last of the batch, and of no other.
        case = "used.all"
    device = SoftwareUnderTest("sim0", on_ring(*ring, misbehaviour=misbehaviour))
    done = await outcomes(device, [case], seconds=0.5)
    assert found(done[case]), done


def test_every_way_is_told_of() -> None:
    ways = {each.name for each in fields(Misbehaviour)} - {"faults", "order"}
    ways |= {*Fault, *Order} - {Order.AS_SENT}
    assert set(FOUND_BY) == ways


# --- other wrong devices ---

WITH_NET = {
    "TakesAll": of(
        "*.bare",
        "*.truncated",
        "*.overlong",
        "*.illegal",
        "*.largest-illegal",
        "*.zero",
        "*.multicast",
        "mac-table-set.*as*",
        "mac-table-set.count",
        "*.too-many*",
        "mq-vq-pairs-set.past-all",
        "mq-rss-config.odd-table",
        "*.long-*",
        "mq-rss-config.entry",
        "mq-rss-config.unclassified",
        "mq-rss-config.no-transmit",
        "*.hash-type",
        "hash-tunnel-set.type",
        "guest-offloads-set.not-negotiated",
        "*.control-queue",
        "*.no-queue",
        "unknown-command.*",
        "unknown-class.alone",
        "one-byte",
    ),
    "RefusesAll": of("*.taken", "*.smallest", "*.largest", "vlan-add.zero", "order.*"),
    "RefusesReserved": ["notf-coal-vq-set.reserved"],
    "KeepsAll": ["reset.mac", "reset.vlan-again", "reset.vlan-gone", "reset.coalescing"],
    "TellsWrong": ["reset.coalescing", "notf-coal-vq-get.same", "notf-coal-vq-get.last"],
    "CarriesOver": ["unknown-class.in-batch"],
}
WITH_NET["TakesAll"].remove("vlan-add.zero")
OF_CLASS = {
    "Fussy": of("framing.*", "ack.room", "ack.apart"),
    "Startled": ["doorbell.idle"],
    "Wedged": ["ack.none"],
}
EVERY_SECOND_LIFE = {"RefusesAll": ["batch.alike", "reset.in-flight"]}
SILENT_FROM = {
    0: ["announce-ack.answered"],
    1: ["unknown-class.behind"],
    33: ["ring.full", "ring.wrap"],
    65000: ["ring.index-wrap"],
}


@pytest.mark.parametrize("net", WITH_NET)
async def test_wrong_settings_are_found(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = with_net(monkeypatch, getattr(bad_devices, net), BEHAVES)
    done = await outcomes(device, WITH_NET[net])
    assert [id_ for id_, each in done.items() if not found(each)] == []


@pytest.mark.parametrize("name", OF_CLASS)
async def test_wrong_devices_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = of_class(monkeypatch, getattr(bad_devices, name), BEHAVES)
    done = await outcomes(device, OF_CLASS[name], seconds=1.0)
    assert [id_ for id_, each in done.items() if not found(each)] == []


@pytest.mark.parametrize("net", EVERY_SECOND_LIFE)
async def test_what_a_reset_breaks_is_found(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in EVERY_SECOND_LIFE[net]:
        device = every_second_life(monkeypatch, getattr(bad_devices, net), BEHAVES)
        done = await outcomes(device, [case])
        assert found(done[case]), done


@pytest.mark.parametrize("at", SILENT_FROM)
async def test_who_falls_silent_is_found(at: int) -> None:
    misbehaviour = Misbehaviour(faults={at: Fault.SILENCE})
    device = SoftwareUnderTest("sim0", replace(BEHAVES, misbehaviour=misbehaviour))
    done = await outcomes(device, SILENT_FROM[at], seconds=1.0)
    assert [id_ for id_, each in done.items() if not found(each)] == []


async def test_commands_that_were_not_negotiated_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(BEHAVES, features=ALL_FEATURES - {Feature.CTRL_VLAN})
    device = with_net(monkeypatch, bad_devices.TakesAll, config)
    done = await outcomes(device, ["not-negotiated"])
    assert found(done["not-negotiated"])
    assert "without CTRL_VLAN" in done["not-negotiated"].seen[0]


async def test_an_address_that_is_not_shown_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def config_now(_: object) -> NetConfig:
        return BEHAVES.net

    monkeypatch.setattr("vdpad.conformance.software._SoftwareUp.config_now", config_now)
    done = await outcomes(SoftwareUnderTest("sim0", BEHAVES), ["mac-addr-set.shown"])
    assert found(done["mac-addr-set.shown"])


def test_every_case_is_found_by_something_here() -> None:
    here = {case for _, case in FOUND_BY.values()}
    here |= {"not-negotiated", "mac-addr-set.shown"}
    for table in (WITH_NET, OF_CLASS, EVERY_SECOND_LIFE, SILENT_FROM):
        here |= {case for cases in table.values() for case in cases}
    assert here == set(CASES)
