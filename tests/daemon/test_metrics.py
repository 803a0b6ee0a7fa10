"""Metrics: what a daemon's textfile holds, by Prometheus' own parser."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import vdpad
from tests.daemon.kinds import KINDS
from tests.daemon.lending import lending
from tests.daemon.support import (
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    faulty,
    serving,
    software,
    vlans,
)
from tests.daemon.udp_support import key_file
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, until
from vdpad.daemon.daemon import Service
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.events.operations import Ended, Interrupted
from vdpad.daemon.metrics import Metrics, Sources
from vdpad.daemon.settings import Settings
from vdpad.service import log
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.wire.sealing import Reason

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]

NOTHING = Sources(
    dict, lambda: 0, dict, dict, dict, journal_dropped=lambda: 0, listener_failures=lambda: 0
)


def samples(text: str) -> Samples:
    """Each sample by its name and labels; none is there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


class Scrape:
    """What a textfile holds."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = samples(text)

    def value(self, name: str, /, **labels: str) -> float:
        """One sample."""
        return self.samples[name, frozenset(labels.items())]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """All samples of a name that are not 0, by their labels' values in the labels' order."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (each, labels), number in self.samples.items()
            if each == name and number
        }


@asynccontextmanager
async def measuring(folder: Path, **settings: Any) -> AsyncIterator[tuple[Caller, Path]]:
    """Someone to ask a daemon, and where its metrics stand once it has ended."""
    file = folder / "vdpad.prom"
    metrics = {"textfile": str(file), "interval_s": 3600}
    async with serving(folder, metrics=metrics, **settings) as path:
        with Caller(path) as caller:
            yield caller, file


def wish(migration: str, state: Json = STATE, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


def scrape(file: Path) -> Scrape:
    return Scrape(file.read_text())


# --- what is counted ---


async def test_a_daemon_that_has_done_nothing_has_its_series_at_zero(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (_, file):
        pass
    found = scrape(file)
    assert found.value("vdpad_build_info", version=vdpad.__version__) == 1
    assert found.value("vdpad_operations_total", outcome="restored", target="lent") == 0
    assert found.value("vdpad_commit_seconds_count", target="vhost-vdpa") == 0
    assert found.value("vdpad_operations_recorded", state="committing") == 0
    for name in ("vdpad_kept_devices", "vdpad_journal_dropped_total"):
        assert found.value(name) == 0
    assert found.value("vdpad_replies_dropped_total", endpoint="unix") == 0
    refused = {"endpoint": "unix", "reason": "queue-full"}
    assert found.value("vdpad_datagrams_refused_total", **refused) == 0


async def test_all_that_may_be_wrong_with_other_hosts_datagrams_is_at_zero(tmp_path: Path) -> None:
    udp = {"listen": "127.0.0.1:0", "key_file": str(key_file(tmp_path))}
    async with measuring(tmp_path, udp=udp) as (_, file):
        pass
    found = scrape(file)
    for reason in Reason:
        refused = {"endpoint": "udp", "reason": reason}
        assert found.value("vdpad_datagrams_refused_total", **refused) == 0


async def test_operations_are_counted_by_outcome_and_target(tmp_path: Path) -> None:
    devices = [{"name": "good"}, faulty("err", 0, name="bad"), faulty("silence", 0, name="late")]
    async with measuring(tmp_path, software=devices) as (caller, file), lending() as lender:
        for number in range(3):
            await caller.result("restore", **wish(f"good-{number}", target=software("good")))
        await caller.error("restore", **wish("bad", vlans(1), software("bad")))
        late = wish("late", vlans(1, 2), software("late"))
        await caller.error("restore", deadline_ms=100, **late)
        await caller.result("restore", lender.fds, **wish("lent", target=lender.target))
        await caller.result("prepare", **wish("cancelled", target=software("good")))
        await caller.result("cancel", migration="cancelled")
        # The daemon's end cancels this one.
        await caller.result("prepare", **wish("prepared", target=software("good")))
    found = scrape(file)
    assert found.of("vdpad_operations_total") == {
        ("restored", "software"): 3,
        ("rejected", "software"): 1,
        ("incomplete", "software"): 1,
        ("restored", "lent"): 1,
        ("cancelled", "software"): 2,
    }
    assert found.of("vdpad_operations_recorded") == {
        ("restored",): 4,
        ("failed",): 2,
        ("cancelled",): 2,
    }
    assert found.of("vdpad_prepare_seconds_count") == {("software",): 7, ("lent",): 1}
    assert found.of("vdpad_commit_seconds_count") == {("software",): 5, ("lent",): 1}


async def test_commands_are_counted_by_name_and_ack(tmp_path: Path) -> None:
    device = {"name": "sim0", "misbehave": {"faults": {"0": "err", "2": "silence"}}}
    async with measuring(tmp_path, software=[device]) as (caller, file):
        await caller.error("restore", deadline_ms=100, **wish("vm-1", vlans(1, 2, 3, 4)))
        await caller.error("restore", deadline_ms=100, **wish("vm-2"))
    acks = scrape(file).of("vdpad_commands_total")
    vlan = {ack: acks[ack, "VLAN_ADD"] for ack in ("ok", "none")}
    assert sum(acks.values()) == 4 + STATE_COMMANDS
    assert sum(number for (ack, _), number in acks.items() if ack == "err") == 2
    assert vlan["none"] >= 1
    assert acks["err", "VLAN_ADD"] == 1
    assert {name for _, name in acks} > {"VLAN_ADD", "MAC_TABLE_SET", "RX_PROMISC"}


async def test_times_and_doorbells_are_those_of_the_reports(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (caller, file):
        states = [STATE] * 4 + [vlans([1, 300])]
        reports = [
            await caller.result("restore", **wish(f"vm-{n}", state))
            for n, state in enumerate(states)
        ]
    found = scrape(file)
    for what in ("prepare", "commit"):
        seconds = sum(report[f"{what}_us"] for report in reports) / 1e6
        told = found.value(f"vdpad_{what}_seconds_sum", target="software")
        assert told == pytest.approx(seconds)
        buckets = [
            number
            for (name, labels), number in found.samples.items()
            if name == f"vdpad_{what}_seconds_bucket" and ("target", "software") in labels
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == 5
        assert len(buckets) == 19
    doorbells = sum(report["doorbells"] for report in reports)
    assert doorbells > len(reports)
    assert found.value("vdpad_doorbells_total", target="software") == doorbells


async def test_requests_are_counted_by_method_and_result(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (caller, file):
        await caller.result("info")
        await caller.result("info")
        await caller.error("status", migration="none")
        await caller.error("prepare", nonsense=1)
        await caller.error("made-up")
        await caller.send(b"no JSON")
        await caller.receive()
        await caller.send(b'{"jsonrpc":"2.0","id":1,"method":["made-up"]}')
        await caller.receive()
    found = scrape(file)
    assert found.of("vdpad_requests_total") == {
        ("info", "ok"): 2,
        ("status", "no-such-migration"): 1,
        ("prepare", "invalid-params"): 1,
        ("unknown", "method-not-found"): 1,
        ("unknown", "parse-error"): 1,
        ("unknown", "invalid-request"): 1,
    }
    assert "made-up" not in found.text


async def test_replies_that_nobody_takes_are_counted(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (caller, file):
        with Caller(tmp_path / "vdpad.sock", address=None) as nameless:
            await nameless.send(b"no JSON")
        await caller.result("info")
    assert scrape(file).value("vdpad_replies_dropped_total", endpoint="unix") == 1


async def test_what_others_count_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vdpad.prom"
    monkeypatch.setattr(log, "dropped", lambda: 4)
    monkeypatch.setattr(DeviceKeeper, "__len__", lambda _: 2)
    monkeypatch.setattr(UnixEndpoint, "datagrams_refused", 5)
    metrics = {"textfile": str(file)}
    socket = tmp_path / "vdpad.sock"
    service = Service(Settings.model_validate({"socket": socket, "metrics": metrics}))
    await service.start()
    service.announce.failures = 3
    await service.stop()
    found = scrape(file)
    assert found.value("vdpad_journal_dropped_total") == 4
    assert found.value("vdpad_kept_devices") == 2
    assert found.value("vdpad_listener_failures_total") == 3
    refused = {"endpoint": "unix", "reason": "queue-full"}
    assert found.value("vdpad_datagrams_refused_total", **refused) == 5


# --- what it costs, and what it leaves out ---


async def test_the_number_of_series_does_not_grow_with_migrations(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (caller, file):
        await caller.result("restore", **wish("vm-first"))
    few = scrape(file)
    async with measuring(tmp_path) as (caller, file):
        for number in range(50):
            await caller.result("restore", **wish(f"vm-{number}"))
    many = scrape(file)
    assert few.samples.keys() == many.samples.keys()
    assert "vm-" not in many.text
    assert "sim0" not in many.text


async def test_names_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    async with measuring(tmp_path) as (caller, file):
        await caller.result("restore", **wish("vm-1"))
    text = file.read_text()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("vdpad_")
        assert family.documentation.endswith(".")
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert names == {f"{family.name}_total"}
        else:
            assert family.type in ("gauge", "histogram")
        assert not any(name.endswith("_created") for name in names)


def test_an_interrupted_operation_is_counted_as_it_is_told() -> None:
    metrics = Metrics("1", NOTHING)
    metrics.heard(Interrupted("vm-1", "vhost-vdpa", "vdpa0", "committing", 3, 1, True))
    found = Scrape(metrics.render().decode())
    assert found.of("vdpad_operations_total") == {("interrupted", "vhost-vdpa"): 1}


def test_every_outcome_of_an_operation_has_a_series_from_the_start() -> None:
    found = Scrape(Metrics("1", NOTHING).render().decode())
    outcomes = {
        dict(labels)["outcome"]
        for name, labels in found.samples
        if name == "vdpad_operations_total"
    }
    ends = {kind.NAME for kind in KINDS if issubclass(kind, Ended)}
    assert outcomes == ends - {"commit-failed"} | {"failed"}


def test_nobody_waits_for_the_library_who_wants_no_metrics(tmp_path: Path) -> None:
    program = (
        "import sys, asyncio; from vdpad.daemon.daemon import Service; "
        "from vdpad.daemon.settings import Settings, MetricsSettings; "
        "import vdpad.cli.vdpad; Service(Settings()); "
        "assert 'prometheus_client' not in sys.modules; "
        "Service(Settings(metrics=MetricsSettings(textfile='/run/vdpad.prom'))); "
        "assert 'prometheus_client' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=GUARD)


# --- the file ---


async def test_the_file_is_there_from_the_start_and_anyone_can_read_it(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        async with measuring(tmp_path) as (_, file):
            await until(file.exists)
            assert file.stat().st_mode & 0o777 == 0o644
            assert scrape(file).value("vdpad_build_info", version=vdpad.__version__) == 1
    finally:
        os.umask(umask)
