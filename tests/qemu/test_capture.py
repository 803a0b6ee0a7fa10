"""vdpactl capture on real devices: it prints what was set, and names what QEMU does not tell."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import GUARD
from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Guestless, Options, guestless
from .lender import assert_restored, feature_names, restore
from .states import (
    HASH_REPORT,
    PARTS,
    RSS,
    WITHOUT_HASHES,
    Sample,
    mac_table,
    multicast_macs,
    rx,
    state_of,
    unicast_macs,
)
from .versions import PROGRAM

Json = dict[str, Any]

HASHES = "rss=on,hash=on"
ASK = "--ask-features"


@asynccontextmanager
async def machine(folder: Path, options: Options) -> AsyncIterator[tuple[Guestless, Path]]:
    """A device with a QMP socket of its own for the capture."""
    monitor = folder / "qmp"
    async with guestless(replace(options, monitor=monitor)) as qemu:
        yield qemu, monitor


def vdpactl(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vdpad.cli.vdpactl", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=GUARD,
        check=False,
    )


async def captured(qemu: Guestless, monitor: Path, *arguments: str) -> Json:
    """All that capture tells; the event loop runs on, as the machine needs it."""
    given = arguments or ("--features", ",".join(feature_names(qemu)))
    done = await asyncio.to_thread(vdpactl, "--json", "capture", "--qmp", str(monitor), *given)
    assert (done.returncode, done.stderr) == (0, ""), done
    result: Json = json.loads(done.stdout)
    return result


def missing(result: Json) -> set[str]:
    return {each["part"] for each in result["missing"]}


def vlan_ids(entries: list[int | list[int]]) -> set[int]:
    ids = (each if isinstance(each, list) else [each, each] for each in entries)
    return {vid for first, last in ids for vid in range(first, last + 1)}


def assert_same(captured: Json, expected: Json) -> None:
    """The captured state has these parts; VLANs that were let through before may be there too."""
    state, wanted = dict(captured), dict(expected)
    assert vlan_ids(state.pop("vlans")) >= vlan_ids(wanted.pop("vlans", []))
    for part, value in wanted.items():
        assert state[part] == value, part


SHOWN = {
    name: sample for name, sample in PARTS.items() if sample.parts.keys() & {"mac", "rx", "vlans"}
} | {"mac-table": mac_table(unicast_macs(3), multicast_macs(5)), "full": PARTS["full-mac-table"]}
"""What query-rx-filter shows."""


@pytest.mark.parametrize("sample", SHOWN.values(), ids=SHOWN)
async def test_what_was_set_is_captured(vdpad: Client, sample: Sample, tmp_path: Path) -> None:
    async with machine(tmp_path, Options()) as (qemu, monitor):
        before = await captured(qemu, monitor)
        await restore(vdpad, qemu, state_of(qemu, sample.parts))
        after = await captured(qemu, monitor)
    assert after["device"] == "virtio-net-pci.0"
    expected = dict(before["state"]) | sample.parts
    hidden = set()
    if "rx" in sample.parts:
        modes = before["state"]["rx"] | sample.parts["rx"]
        hidden = {f"rx.all{each}" for each in ("uni", "multi") if modes[f"no{each}"]}
        expected["rx"] = {key: on for key, on in modes.items() if f"rx.{key}" not in hidden}
    if "mac_table" in sample.parts:
        flags = {"unicast_overflow": False, "multicast_overflow": False}
        expected["mac_table"] = sample.parts["mac_table"] | flags
    assert_same(after["state"], expected)
    assert missing(after) == {"queue_pairs", "guest_offloads"} | hidden


async def test_vlans_are_captured_one_by_one(program: str, vdpad: Client, tmp_path: Path) -> None:
    """A device whose table is empty, as QEMU 7.2's is after a reset, has those that were set."""
    async with machine(tmp_path, Options(qemu=program)) as (qemu, monitor):
        before = await captured(qemu, monitor)
        await restore(vdpad, qemu, state_of(qemu, {"vlans": [0, 7, [100, 200], 4095]}))
        after = await captured(qemu, monitor)
    if before["state"]["vlans"]:
        assert before["state"]["vlans"] == after["state"]["vlans"] == [[0, 4095]]
        assert any("every VLAN" in note for note in after["notes"])
    else:
        assert after["state"]["vlans"] == [0, 7, [100, 200], 4095]
        assert after["notes"] == []


@pytest.mark.parametrize("sample", [RSS, HASH_REPORT], ids=["rss", "hash-report"])
async def test_what_is_not_told_is_missing(vdpad: Client, sample: Sample, tmp_path: Path) -> None:
    async with machine(tmp_path, Options(device_properties=HASHES)) as (qemu, monitor):
        await restore(vdpad, qemu, state_of(qemu, sample.parts))
        found = await captured(qemu, monitor)
    assert missing(found) == {"queue_pairs", "rss", "hash_report", "guest_offloads"}
    assert found["state"].keys().isdisjoint(missing(found))


async def answers_about_features(qemu: Guestless) -> bool:
    version = (await qemu.qmp.execute("query-version"))["qemu"]
    return bool((version["major"], version["minor"]) <= (10, 0))


async def refuses_to_ask(qemu: Guestless, monitor: Path) -> None:
    """QEMU 11.1 does not survive the question, so it is not asked."""
    done = await asyncio.to_thread(vdpactl, "capture", "--qmp", str(monitor), ASK)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected QEMU 7.2 … 10.0" in done.stderr
    assert (await qemu.rx_filter()).main_mac == Options().mac


@pytest.mark.parametrize(
    "without",
    [
        set(),
        {Feature.MQ, Feature.CTRL_GUEST_OFFLOADS},
        {Feature.CTRL_RX, Feature.CTRL_RX_EXTRA},
        {Feature.CTRL_RX_EXTRA},
        {Feature.CTRL_MAC_ADDR, Feature.CTRL_VLAN},
        {Feature.RING_EVENT_IDX, Feature.RING_INDIRECT_DESC},
        {Feature.GUEST_USO6},
    ],
    ids=str,
)
async def test_features_are_those_that_were_negotiated(
    program: str, without: set[Feature], tmp_path: Path
) -> None:
    options = Options(
        qemu=program, without=frozenset(without), device_properties=f"{HASHES},host_mtu=1500"
    )
    async with machine(tmp_path, options) as (qemu, monitor):
        found = await captured(qemu, monitor)
        state = found["state"]
        assert state["features"] == feature_names(qemu)
        if await answers_about_features(qemu):
            assert await captured(qemu, monitor, ASK) == found
        else:
            await refuses_to_ask(qemu, monitor)
    assert ("mac" in state) is (Feature.CTRL_MAC_ADDR not in without)
    assert ("vlans" in state) is (Feature.CTRL_VLAN not in without)
    assert ("mac_table" in state) is (Feature.CTRL_RX not in without)
    assert ("queue_pairs" in missing(found)) is True
    assert ("guest_offloads" in missing(found)) is (Feature.CTRL_GUEST_OFFLOADS not in without)


async def test_a_feature_that_qemu_has_no_sentence_for(tmp_path: Path) -> None:
    """RING_RESET is one on 7.2: QEMU gives it as a mask."""
    async with machine(tmp_path, Options()) as (qemu, _):
        negotiated = qemu.features
        offered = qemu.offered
    assert Feature.RING_RESET in offered
    options = Options(negotiate=negotiated | {Feature.RING_RESET})
    async with machine(tmp_path, options) as (qemu, monitor):
        found = await captured(qemu, monitor, ASK)
    assert "RING_RESET" in found["state"]["features"]


async def test_features_that_contradict_qemu_are_refused(tmp_path: Path) -> None:
    async with machine(tmp_path, Options()) as (_, monitor):
        done = await asyncio.to_thread(
            vdpactl, "capture", "--qmp", str(monitor), "--features", "CTRL_VQ,CTRL_RX"
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert "CTRL_VLAN was among them" in done.stderr


async def test_what_is_printed_is_ready_for_a_restore(vdpad: Client, tmp_path: Path) -> None:
    """Captured on one device, restored on another, captured there: the same."""
    shown = WITHOUT_HASHES | rx(promisc=False, allmulti=True, nobcast=True)
    parts = {key: shown.parts[key] for key in ("mac", "rx", "mac_table", "vlans")}
    async with machine(tmp_path, Options()) as (source, monitor):
        await restore(vdpad, source, state_of(source, parts))
        done = await asyncio.to_thread(vdpactl, "capture", "--qmp", str(monitor), ASK)
    assert done.returncode == 0
    assert "virtio-net-pci.0: missing: queue_pairs: " in done.stderr
    async with machine(tmp_path, Options(mac="52:54:00:00:00:99")) as (target, monitor):
        assert_restored(await restore(vdpad, target, json.loads(done.stdout)), target)
        assert (await captured(target, monitor))["state"] == json.loads(done.stdout)


async def test_a_migration_stream_says_the_same(
    program: str, daemon: Daemon, vdpad: Client, tmp_path: Path
) -> None:
    """What a capture tells, a stream of the same device tells too; it has what is missing."""
    stream, state = tmp_path / "stream", tmp_path / "state.json"
    options = Options(qemu=program, device_properties="rss=on")
    async with machine(tmp_path, options) as (qemu, monitor):
        await restore(vdpad, qemu, state_of(qemu, (WITHOUT_HASHES | RSS).parts))
        found = await captured(qemu, monitor)
        stream.write_bytes(await qemu.stream())
    state.write_text(json.dumps(found["state"]))

    compared = vdpactl("--json", "diff", str(state), str(stream))
    assert compared.returncode == 1, compared
    (device,) = json.loads(compared.stdout)["devices"]
    assert {(each["path"], each["kind"]) for each in device["differences"]} == {
        (path, "only-second") for path in missing(found)
    }
    check = ("--json", "--socket", str(daemon.socket), "check", str(stream), "--software", "sim0")
    for chosen in ((), ("--device", device["device"])):
        assert json.loads(vdpactl(*check, *chosen).stdout)["compatible"] is True
    other = vdpactl(*check, "--device", "0000:00:1f.0")
    assert (other.returncode, other.stdout) == (2, "")
    assert f"there: {device['device']}" in other.stderr


async def test_a_device_with_an_id(tmp_path: Path) -> None:
    async with machine(tmp_path, Options(device_properties="id=nic7")) as (qemu, monitor):
        found = await captured(qemu, monitor, "--device", "nic7", ASK)
        assert found["device"] == "nic7"
        assert found["state"]["features"] == feature_names(qemu)


# --- several devices, which no driver has come to ---


@contextmanager
def several(folder: Path, *names: str) -> Iterator[Path]:
    """A machine with a card for each name; one without a name has no id. Gives its QMP socket."""
    path = folder / "qmp"
    cards = [
        argument
        for at, name in enumerate(names)
        for argument in (
            *("-netdev", f"hubport,id=net{at},hubid={at}"),
            *("-device", f"virtio-net-pci,netdev=net{at},romfile={f',id={name}' * bool(name)}"),
        )
    ]
    # QEMU inherits a socket that listens already, so nobody comes too early.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [
            *("setpriv", "--pdeathsig", "KILL", PROGRAM),
            *("-no-user-config", "-nodefaults", "-display", "none", "-S", "-accel", "tcg"),
            *("-m", "64", *cards, "-mon", "chardev=qmp,mode=control"),
            *("-chardev", f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off"),
        ]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as qemu:
            try:
                yield path
            finally:
                qemu.kill()


def test_one_of_several_devices_is_chosen(tmp_path: Path) -> None:
    with several(tmp_path, "a", "", "b") as qmp:
        done = vdpactl("capture", "--qmp", str(qmp), ASK)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--device to say which one" in done.stderr
        for name in ("a", "b", "virtio-net-pci.1"):
            assert name in done.stderr
            one = vdpactl("--json", "capture", "--qmp", str(qmp), "--device", name, ASK)
            assert (one.returncode, one.stderr) == (0, "")
            assert json.loads(one.stdout)["device"] == name
            assert json.loads(one.stdout)["state"] == {"version": 1, "features": []}
        none = vdpactl("capture", "--qmp", str(qmp), "--device", "c", ASK)
        assert (none.returncode, none.stdout) == (2, "")


def test_devices_without_ids_are_not_guessed(tmp_path: Path) -> None:
    with several(tmp_path, "", "") as qmp:
        arguments = ("--json", "capture", "--qmp", str(qmp), "--device", "virtio-net-pci.1")
        done = vdpactl(*arguments, ASK)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--features" in done.stderr
        given = vdpactl(*arguments, "--features", "VERSION_1")
        assert json.loads(given.stdout)["state"] == {"version": 1, "features": ["VERSION_1"]}


def test_another_client_has_the_monitor(tmp_path: Path) -> None:
    with (
        several(tmp_path, "a") as qmp,
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(qmp)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        done = vdpactl("--timeout", "0.5", "capture", "--qmp", str(qmp), ASK)
        other.communicate(b"")
    assert (done.returncode, done.stdout) == (7, "")
    assert "one client of a monitor at a time" in done.stderr


_HOLD = """
import socket, sys
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(sys.argv[1])
monitor.recv(4096)
print(flush=True)
sys.stdin.read()
"""
