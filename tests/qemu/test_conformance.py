"""The conformance suite on every QEMU's device: what docs/conformance.md tells of each is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from vdpad.conformance.case import Verdict
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.self_test import read_self_test, self_test_of
from vdpad.conformance.suite import SuiteStage, run
from vdpad.virtio.features import Feature

from .guestless import Options, guestless
from .under_test import QemuUnderTest
from .versions import TRIXIE_BACKPORTS, release, why_unavailable

PAGE = Path(__file__).parents[2] / "docs/conformance.md"
HASHING = "rss=on,hash=on"


def told(version: str) -> dict[str, str]:
    """The verdicts that the page has of a QEMU's device, by case."""
    table = PAGE.read_text().partition("| case | ")[2].partition("\n\n")[0].splitlines()
    versions = [each.strip() for each in table[0].split("|")]
    rows = [re.findall(r"[^|\s`]+", line) for line in table[2:]]
    return {row[0]: row[1:][versions.index(f"QEMU {version}")] for row in rows}


async def test_what_the_page_tells_of_a_device_is_so(program: str) -> None:
    found = release(program)
    assert found is not None
    version = "{}.{}".format(*found)
    async with guestless(Options(qemu=program, device_properties=HASHING)) as qemu:
        before = await qemu.rx_filter()
        device = QemuUnderTest(qemu, version)
        done = await run(device, CASES.values(), rounds=2, stage=SuiteStage())
        assert await qemu.rx_filter() == before
    verdicts = {each.case.id: each.verdict for each in done.cases}
    page = told(version)
    assert {id_: verdict for id_, verdict in verdicts.items() if id_ in page} == page
    others = {verdict for id_, verdict in verdicts.items() if id_ not in page}
    assert others == {Verdict.PASS, Verdict.NOT_APPLICABLE}
    for each in done.cases:
        lacks = not each.case.needs <= qemu.features
        assert not lacks or each.verdict is Verdict.NOT_APPLICABLE
    result = self_test_of(done)
    assert (result.findings, result.repeat) == ((), 2)
    assert read_self_test(result.model_dump_json(exclude={"comparison"}).encode()) == result


@pytest.mark.parametrize("size", [63, 64])
async def test_a_packed_ring_s_device_does_the_same(size: int) -> None:
    options = Options(packed=True, ring_size=size, device_properties=HASHING)
    async with guestless(options) as qemu:
        assert Feature.RING_PACKED in qemu.features
        device = QemuUnderTest(qemu, "7.2")
        done = await run(device, CASES.values(), rounds=1, stage=SuiteStage())
    verdicts = {each.case.id: each.verdict for each in done.cases}
    assert {id_: verdict for id_, verdict in verdicts.items() if id_ in told("7.2")} == told("7.2")
    assert Verdict.FAIL not in verdicts.values()


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
async def test_a_device_in_order_does_the_same(packed: bool) -> None:
    skip_or_fail(why_unavailable(TRIXIE_BACKPORTS))
    options = Options(
        qemu=TRIXIE_BACKPORTS.program,
        packed=packed,
        also=frozenset({Feature.IN_ORDER}),
        device_properties=f"in_order=on,{HASHING}",
    )
    async with guestless(options) as qemu:
        device = QemuUnderTest(qemu, "11.1")
        done = await run(device, CASES.values(), rounds=1, stage=SuiteStage())
    verdicts = {each.case.id: each.verdict for each in done.cases}
    assert {id_: each for id_, each in verdicts.items() if id_ in told("11.1")} == told("11.1")
    assert Verdict.FAIL not in verdicts.values()


async def test_commands_that_were_not_negotiated_are_noted() -> None:
    """QEMU looks at no feature for VLANs."""
    options = Options(without=frozenset({Feature.CTRL_VLAN}))
    async with guestless(options) as qemu:
        device = QemuUnderTest(qemu, "7.2")
        cases = [CASES["not-negotiated"]]
        done = await run(device, cases, rounds=1, stage=SuiteStage())
    (outcome,) = done.cases
    assert outcome.verdict is Verdict.NOTE
    assert any("without CTRL_VLAN" in each for each in outcome.seen)


@pytest.mark.parametrize("size", [2, 4, 32])
async def test_rings_of_other_sizes_are_tested_too(size: int) -> None:
    async with guestless(Options(ring_size=size, start_index=65000)) as qemu:
        few = [CASES[each] for each in CASES if each.startswith(("used.", "ack.", "ring.f"))]
        done = await run(QemuUnderTest(qemu, "7.2"), few, rounds=1, stage=SuiteStage())
    assert {each.verdict for each in done.cases} <= {Verdict.PASS, Verdict.NOT_APPLICABLE}
    assert done.ring_size == size
