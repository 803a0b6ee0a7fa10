"""vdpactl asks back ends: one by its name, and all that this host has."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.backend.process import new_guest, running
from tests.backend.test_kept_queue import KEPT
from tests.cli.commands import refused, run, said
from tests.daemon.support import STATE
from tests.support.daemon import daemon
from tests.support.waiting import until
from tests.vhost_user.front_end import SET_STATUS, u64
from vdpad.cli import back_end, show_back_end, vdpactl
from vdpad.virtio.commands import ACK_OK, RxAllUni, VlanAdd

OK = bytes((ACK_OK,))


async def ask(*arguments: str) -> str:
    return await asyncio.to_thread(said, *arguments)


async def test_one_is_asked_for_everything(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        await vmm.start()
        assert await vmm.command(VlanAdd(7).encode()) == OK
        assert await vmm.command(RxAllUni(on=True).encode()) == OK
        named = ("--backend", str(process.control))
        assert "the guest’s commands are seen" in await ask(*named, "info")
        shown = await ask("status", *named)
        assert "phase      running" in shown
        assert "commands   2, of them 0 refused" in shown
        assert len([line for line in shown.splitlines() if line.endswith("yes")]) == 9
        captured = json.loads(await ask(*named, "capture", "--json"))
        assert captured == await process.ask("capture")
        connected = ("--backend", str(process.varlink))
        assert json.loads(await ask(*connected, "capture", "--json")) == captured
        assert "phase      running" in await ask(*connected, "status")
        assert "vlans        1 id: 7" in await ask(*named, "capture")
        # What was captured can be checked, as it is.
        file = tmp_path / "state.json"
        file.write_text(json.dumps(captured["state"]))
        checked = await ask(*named, "check", str(file))
        assert "VLAN_ADD" in checked
        file.write_text(json.dumps({"version": 1, "features": ["CTRL_VQ"]}))
        assert "The device takes this state" in await ask(*named, "check", str(file))
        big = {"version": 1, "features": ["CTRL_VQ", "MQ"], "queue_pairs": 99}
        file.write_text(json.dumps(big))
        done = await asyncio.to_thread(run, *named, "check", str(file))
        assert done.returncode == 3
        assert b"queue_pairs" in done.stdout
        assert (await asyncio.to_thread(run, *connected, "check", str(file))).returncode == 3


async def test_what_one_has_captured_is_loaded_into_another(tmp_path: Path) -> None:
    guest = new_guest()
    folders = [tmp_path / name for name in ("source", "destination")]
    for folder in folders:
        folder.mkdir()
    async with running(folders[0]) as source, running(folders[1], "--stay") as destination:
        captured = tmp_path / "captured.json"
        named = ("--backend", str(destination.varlink))
        async with source.vmm(guest) as vmm:
            await vmm.start()
            for vid in (7, 8):
                assert await vmm.command(VlanAdd(vid).encode()) == OK
            bases = await vmm.stop()
            answered = await ask("--backend", str(source.varlink), "capture", "--json")
            captured.write_text(answered)
        assert "what a back end has captured" in await ask("decode", str(captured))
        report = json.loads(await ask(*named, "load", str(captured), "--json"))
        assert (report["outcome"], report["applied"]) == ("restored", 1 + 1)
        assert json.loads(await ask(*named, "capture", "--json")) == json.loads(answered)
        # It is there for the next guest, also where the process is killed before that comes.
        assert (destination.state / "guest.state").exists()
        async with destination.vmm(guest) as vmm:
            await vmm.start(bases)
            assert (await destination.ask("capture"))["state"]["vlans"] == [7, 8]
            assert await vmm.command(VlanAdd(9).encode()) == OK
            busy = await asyncio.to_thread(run, *named, "load", str(captured))
            assert busy.returncode == 1
            assert b"busy: " in busy.stderr
            early = tmp_path / "early.json"
            early.write_text(await ask(*named, "capture", "--json"))
            for command in (("check", str(early)), ("load", str(early))):
                noted = await asyncio.to_thread(run, *named, *command)
                assert b"note: it was captured while its guest ran" in noted.stderr
        (event,) = destination.events("state-loaded")
        assert (event["rehearsed"], event["commands"]) == (True, 2)
        state = json.loads(answered)["state"]
        captured.write_text(json.dumps({**state, "queue_pairs": 99}))
        await until(lambda: len(destination.events("front-end-left")) == 1)
        refused_one = await asyncio.to_thread(run, *named, "load", str(captured))
        assert refused_one.returncode == 3
        assert b"99 queue pairs; the device takes 4" in refused_one.stderr + refused_one.stdout
    guest.close()


async def test_what_was_only_tried_is_not_told_as_done(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [7]}')
    async with running(tmp_path) as process:
        named = ("--backend", str(process.control))
        shown = await ask(*named, "load", str(state))
        assert "This was a trial: a guest that goes on here is given it" in shown
        assert "given when it last started, or tried since:" in await ask(*named, "status")


async def test_another_device_takes_over(tmp_path: Path) -> None:
    async with running(tmp_path, "--stay") as process, process.vmm() as vmm:
        named = ("--backend", str(process.control))
        await vmm.start()
        assert await vmm.command(VlanAdd(7).encode()) == OK
        assert await vmm.loop(b"before") == b"before"
        shown = await ask(*named, "switch", "--software", "loop")
        assert "applied       1 of 1 command" in shown
        assert "the guest's queues stood still for" in shown
        assert await vmm.loop(b"after") == b"after"
        assert (await process.ask("status"))["report"]["applied"] == 1
        refused_one = await asyncio.to_thread(run, *named, "switch", "--vhost-vdpa", "none")
        assert refused_one.returncode == 1
        assert b"no-such-device: " in refused_one.stderr
        assert await vmm.loop(b"after that") == b"after that"
        await vmm.stop()
        shown = await ask(*named, "switch", "--software", "loop")
        assert "no guest ran: the device is in place for the next start" in shown
        assert "stood still" not in shown
        (event, _) = process.events("device-switched")
        assert (event["before"], event["after"]) == ("loop", "loop")
        assert event["paused_us"] > 0
        (event,) = process.events("switch-failed")
        assert "none" in event["reason"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ["--backend", "a", "devices"],
            "expected one of info, status, capture, check, load, switch",
        ),
        (["--backend", "a", "--socket", "b", "info"], "either --backend or a daemon's"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], what: str) -> None:
    assert what in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["check", "file"], "one of --software, --vhost-vdpa and --target, or --backend"),
        (["load", "file"], "--backend, as no daemon takes states so"),
        (["switch", "--software", "loop"], "--backend, as no daemon has a guest's device"),
        (["capture"], "--qmp and one of --features and --ask-features, or --backend"),
        (["capture", "--qmp", "x"], "--qmp and one of"),
        (["capture", "--features", "MQ"], "--qmp and one of"),
    ],
)
def test_what_is_needed_where_no_back_end_is_asked(arguments: list[str], what: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert what in done.stderr.decode()


async def test_whose_socket_it_is_is_said(tmp_path: Path) -> None:
    """And by which option to ask there."""
    for name in ("daemon", "back-end"):
        (tmp_path / name).mkdir()
    state = tmp_path / "state.json"
    state.write_text(json.dumps(STATE))
    with daemon(tmp_path / "daemon") as vdpad:
        for method in (["info"], ["status"], ["capture"], ["check", str(state)]):
            said = await asyncio.to_thread(refused, "--backend", str(vdpad.socket), *method)
            assert "expected a back end's socket, got a daemon's; ask it by --socket" in said
    async with running(tmp_path / "back-end") as process:
        check = ["check", str(state), "--software", "sim0"]
        for socket in (process.control, process.varlink):
            for method in (["info"], ["status"], ["devices"], check, ["cancel", "vm-1"]):
                said = await asyncio.to_thread(refused, "--socket", str(socket), *method)
                assert "expected a daemon's socket, got a back end's; ask it by" in said
        said = await asyncio.to_thread(refused, "--socket", str(process.varlink), "watch")
        assert "expected a daemon's socket, got a back end's; ask it by --backend" in said
        shown = await ask("--backend", str(process.control), "info")
        assert "not seen, or no guest runs" in shown


async def test_whether_a_vmm_keeps_the_control_queue(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        assert "commands   0, of them 0 refused" in await ask(
            "status", "--backend", str(process.control)
        )
        vmm.features = KEPT
        del vmm.guest.queues[2:]
        await vmm.set_up()
        await vmm.enable_all()
        await vmm.front_end.done(SET_STATUS, u64(0xF))
        shown = await ask("status", "--backend", str(process.control))
    assert "phase      running" in shown
    assert "commands   not seen: the VMM keeps the control queue" in shown


async def test_whether_the_guest_that_is_captured_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        asked = ("capture", "--backend", str(process.control))
        assert "is stopped" not in await ask(*asked)
        await vmm.start()
        assert "is stopped" not in await ask(*asked)
        await vmm.stop()
        assert "The device is stopped: this is kept for a guest" in await ask(*asked)


def test_one_that_is_not_there() -> None:
    assert "/run/vdpad/vhost-user/nonesuch/control" in refused(
        "--backend", "nonesuch", "status", code=7
    )


async def test_all_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(back_end, "BACK_ENDS", tmp_path)
    assert await listed(capsys) == []
    assert "--backend PATH" in show_back_end.back_ends([])
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    async with running(tmp_path / "one"), running(tmp_path / "two") as killed:
        killed.kill()
        one, two = await listed(capsys)
    assert (one["name"], one["status"]["phase"], one["why"]) == ("one", "waiting", None)
    assert (two["name"], two["status"]) == ("two", None)
    assert "Connection refused" in two["why"]
    table = show_back_end.back_ends([one, two]).splitlines()
    assert table[2].split() == ["one", "waiting", "loop", "none"]
    assert "unreachable" in table[3]


async def listed(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    assert await asyncio.to_thread(vdpactl.main, ["backends", "--json"]) == 0
    told: list[Any] = json.loads(capsys.readouterr().out)
    return told
