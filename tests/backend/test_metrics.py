"""Metrics: what a back end's textfile holds, by Prometheus' own parser."""

import argparse
from pathlib import Path

import pytest

import vdpad
from tests.backend.process import running
from tests.backend.vmm import HEADER
from tests.daemon.test_metrics import Scrape
from tests.support.daemon import ROOT
from tests.support.pages import quoted, table
from tests.support.waiting import until
from vdpad.backend.control.results import BackEndPhase
from vdpad.backend.guest_settings import CommandCounts
from vdpad.backend.metrics import BackEndMetrics, BackEndSources
from vdpad.cli.arguments import textfile
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.virtio.commands import VlanAdd


def scraped(file: Path) -> Scrape:
    return Scrape(file.read_text())


async def test_what_a_guest_and_its_vmm_did(tmp_path: Path) -> None:
    file = tmp_path / "net0.prom"
    async with running(tmp_path, "--stay", "--metrics", str(file)) as on:
        await until(file.exists)
        assert scraped(file).value("vdpad_back_end_phase", device="net0", phase="waiting") == 1
        async with on.vmm() as machine:
            await machine.start()
            assert await machine.command(VlanAdd(5).encode()) == b"\0"
            assert await machine.command(VlanAdd(5).encode()) == b"\1"
            await machine.pause()
            assert await machine.command(VlanAdd(6).encode()) == b"\0"
            await on.ask("info")
    found = scraped(file)
    assert found.value("vdpad_back_end_info", device="net0", version=vdpad.__version__) == 1
    assert found.of("vdpad_back_end_commands_total") == {
        ("net0", "acked"): 2,
        ("net0", "refused"): 1,
    }
    assert found.of("vdpad_back_end_starts_total") == {("net0", "no"): 1, ("net0", "yes"): 1}
    assert found.of("vdpad_back_end_restores_total") == {("net0",): 1}
    assert found.value("vdpad_back_end_restore_seconds_total", device="net0") > 0
    assert found.of("vdpad_back_end_front_ends_total") == {("net0",): 1}
    assert found.of("vdpad_back_end_requests_total") == {("net0", "info", "ok"): 1}
    for name in ("failures", "front_end_refusals", "datagrams_refused", "listener_failures"):
        assert found.value(f"vdpad_back_end_{name}_total", device="net0") == 0
    assert found.of("vdpad_back_end_filter_followed") == {}


async def test_packets_that_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "net0.prom"
    async with (
        running(tmp_path, "--stay", "--metrics", str(file)) as on,
        on.vmm() as machine,
    ):
        await machine.start()
        receive, transmit = machine.guest.queues[:2]
        receive.send([], [16])
        transmit.send([HEADER, bytes(100)], [])
        await until(lambda: transmit.returned == 1)
        assert await machine.loop(b"pack") == b"pack"
    found = scraped(file)
    assert found.of("vdpad_back_end_packets_dropped_total") == {("net0",): 1}


def test_a_device_that_does_not_tell_what_it_drops_has_no_such_metric() -> None:
    sources = BackEndSources(
        phase=lambda: BackEndPhase.WAITING,
        commands=CommandCounts,
        packets_dropped=lambda: None,
        follows=None,
        requests=dict,
        datagrams_refused=int,
        replies_dropped=int,
        journal_dropped=int,
        listener_failures=int,
    )
    whole = BackEndMetrics("net0", sources).render().decode()
    assert Scrape(whole).of("vdpad_back_end_packets_dropped_total") == {}
    assert ShadowedNode.dropped is None


async def test_whether_the_filter_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "net0.prom"
    options = ("--qmp", str(tmp_path / "qmp"), "--metrics", str(file))
    async with running(tmp_path, *options):
        await until(file.exists)
    assert scraped(file).value("vdpad_back_end_filter_followed", device="net0") == 0


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "net0.prom"
    async with running(tmp_path, "--metrics", str(file)) as on:
        await until(lambda: on.events("file-not-written"))
        await on.ask("info")


async def test_every_metric_is_told_with_its_labels(tmp_path: Path) -> None:
    file = tmp_path / "net0.prom"
    options = ("--qmp", str(tmp_path / "qmp"), "--metrics", str(file))
    async with running(tmp_path, *options) as on:
        await on.ask("info")
    page = (ROOT / "docs" / "backend.md").read_text()
    told = {
        (quoted(name)[0], frozenset({"device", *filter(None, labels.split(", "))}))
        for name, labels, _ in table(page, "metric of a back end", "labels beside device", "what")
    }
    assert told == {
        (name, frozenset(label for label, _ in labels)) for name, labels in scraped(file).samples
    }


@pytest.mark.parametrize("path", ["net0.txt", "net0", ""])
def test_a_path_that_no_collector_reads(path: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a path"):
        textfile(path)
