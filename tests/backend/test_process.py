"""The program: one process for one device, its front ends, and what outlives it."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.backend.process import MODULE, PROGRAM, BackEndProcess, new_guest, running
from tests.backend.vmm import PLAIN
from tests.support.daemon import ROOT
from tests.support.descriptors import count_of_descriptors
from tests.support.forker import forker_of
from tests.support.varlink import VarlinkCaller
from tests.support.waiting import GUARD, until
from tests.vhost_user import front_end as page
from vdpad.backend.kept.file import decode_file, encode_file
from vdpad.virtio.commands import ACK_OK, MacAddrSet, MqPairsSet, RxPromisc, VlanAdd
from vdpad.virtio.features import FEATURES

OK = bytes((ACK_OK,))
MAC = bytes.fromhex("525400aabbcc")
COMMANDS = (MqPairsSet(2), RxPromisc(on=True), VlanAdd(7), VlanAdd(8), MacAddrSet(MAC))


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the program does that does not get as far as to serve."""
    return forker_of(MODULE).text(*arguments, timeout=GUARD)


def said_anew(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """The same of an interpreter of its own, with more for Popen."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        **more,
    )


# --- front ends ---


async def test_a_guest_is_served_and_captured(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        await vmm.start()
        for command in COMMANDS:
            assert await vmm.command(command.encode()) == OK
        assert await vmm.loop(b"packet") == b"packet"
        captured = await process.ask("capture")
        assert captured["running"] is True
        assert captured["missing"] == []
        state = captured["state"]
        assert (state["queue_pairs"], state["rx"], state["vlans"], state["mac"]) == (
            2,
            {"promisc": True},
            [7, 8],
            "52:54:00:aa:bb:cc",
        )
        status = await process.ask("status")
        assert status["phase"] == "running"
        assert status["device"] == "loop"
        assert status["front_end"] == {"pid": os.getpid(), "uid": os.getuid()}
        assert status["commands"] == {"forwarded": 5, "acked": 5, "refused": 0}
        info = await process.ask("info")
        assert (info["name"], info["provides_control_queue"]) == ("net0", True)


async def test_where_a_front_end_may_connect_is_told_each_time(tmp_path: Path) -> None:
    async with running(tmp_path, "--stay") as process:
        for number in (1, 2):
            await until(lambda: len(process.events("front-end-awaited")) == number)  # noqa: B023
            async with process.vmm() as machine:
                await machine.start()
        told = process.events("front-end-awaited")
        assert {each["socket"] for each in told} == {str(process.front_end)}


async def test_it_ends_when_its_front_end_has_gone(tmp_path: Path) -> None:
    process = await asyncio.to_thread(BackEndProcess(tmp_path).ready)
    async with process.vmm() as vmm:
        await vmm.start()
    assert await asyncio.to_thread(process.wait) == 0
    assert not process.front_end.exists()
    assert not process.control.exists()
    names = ("front-end-came", "device-started", "device-stopped", "front-end-left")
    assert [each["event"] for each in process.events(*names)] == list(names)


async def test_with_stay_the_next_one_finds_everything(tmp_path: Path) -> None:
    guest = new_guest()
    async with running(tmp_path, "--stay") as process:
        async with process.vmm(guest) as vmm:
            await vmm.start()
            assert await vmm.command(VlanAdd(7).encode()) == OK
            bases = await vmm.stop()
        assert (await process.ask("capture"))["rings"][-1] == {"queue": 8, "base": 1}
        async with process.vmm(guest) as vmm:
            await vmm.start(bases)
            assert (await process.ask("capture"))["state"]["vlans"] == [7]
            assert await vmm.command(VlanAdd(8).encode()) == OK
            report = (await process.ask("status"))["report"]
            assert (report["outcome"], report["migration"]) == ("restored", "net0")
        async with process.vmm() as vmm:
            await vmm.start()
            assert "vlans" not in (await process.ask("capture"))["state"]
    guest.close()


async def test_front_ends_that_come_and_go_leave_no_descriptor(tmp_path: Path) -> None:
    async with running(tmp_path, "--stay") as process:
        for number in range(1, 4):
            async with process.vmm() as vmm:
                await vmm.start()
                assert await vmm.command(VlanAdd(7).encode()) == OK
            gone = partial(_have_gone, process, number)
            await until(gone)
            if number == 1:
                first = await _settled(process)
        await until(lambda: count_of_descriptors(process.process.pid) == first)


def _have_gone(process: BackEndProcess, number: int) -> bool:
    return len(process.events("front-end-left")) == number


async def _settled(process: BackEndProcess) -> int:
    """How many descriptors it has once threads have closed those of a front end."""
    guests = f"/proc/{process.process.pid}/maps"
    await until(lambda: "front-end-memory" not in Path(guests).read_text())
    counts = [-1, count_of_descriptors(process.process.pid)]
    while counts[-1] != counts[-2]:
        await asyncio.sleep(0.2)
        counts.append(count_of_descriptors(process.process.pid))
    return counts[-1]


async def test_sigterm_ends_it_in_the_middle(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        await vmm.start()
        async with process.vmm() as second:
            assert await second.front_end.ended() == b""
        assert await asyncio.to_thread(process.stop) == 0
        assert [each["event"] for each in process.events("device-stopped")] == ["device-stopped"]
        (turned_away,) = process.events("front-end-refused")
        assert "another has the device" in turned_away["reason"]
        left, ended = process.events("front-end-left", "back-end-ended")
        assert (left["reason"], ended["event"]) == (
            "the back end was told to end",
            "back-end-ended",
        )
        assert await vmm.front_end.ended() == b""


async def test_sighup_takes_no_guest_s_device(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as machine:
        await machine.start()
        process.process.send_signal(signal.SIGHUP)
        assert await machine.command(VlanAdd(5).encode()) == OK
        assert (await process.ask("status"))["phase"] == "running"


async def test_a_front_end_that_lies_ends_its_connection_only(tmp_path: Path) -> None:
    async with running(tmp_path, "--stay") as process:
        async with process.vmm() as vmm:
            await vmm.front_end.number(page.GET_FEATURES)
            await vmm.front_end.send_bytes(b"\xff" * 12)
            await vmm.front_end.ended()
        await until(lambda: len(process.events("front-end-left")) == 1)
        (event,) = process.events("front-end-left")
        assert event["reason"]
        async with process.vmm() as vmm:
            await vmm.start()
            assert (await process.ask("status"))["phase"] == "running"


async def test_who_speaks_something_else_or_nothing_ends_no_back_end(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        async with process.vmm() as stranger, process.vmm() as silent:
            await stranger.front_end.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
            assert await stranger.front_end.ended() == b""
            (told,) = process.events("front-end-refused")
            assert "speak vhost-user to this socket" in told["reason"]
            assert (await process.ask("status"))["phase"] == "waiting"
            async with process.vmm() as machine:
                await machine.start()
                assert await silent.front_end.ended() == b""
                assert await machine.loop(b"packet") == b"packet"
        assert await asyncio.to_thread(process.wait) == 0
        assert len(process.events("front-end-came")) == 1


@pytest.mark.parametrize("spare", range(0, 30, 6))
async def test_without_descriptors_a_front_end_is_refused_and_the_next_is_served(
    tmp_path: Path, spare: int
) -> None:
    async with running(tmp_path, "--stay") as process:
        pid = process.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = (count_of_descriptors(pid) + spare, before[1])
        async with process.vmm() as vmm:
            await vmm.front_end.number(page.GET_FEATURES)
            assert (await process.ask("status"))["phase"] == "connected"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, few)
            with contextlib.suppress(ConnectionError, AssertionError):
                await vmm.start()
        await until(lambda: _have_gone(process, 1))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with process.vmm() as vmm:
            await vmm.start()
            assert await vmm.loop(b"packet") == b"packet"


@pytest.mark.parametrize("limit", [8, 10, 12, 14])
async def test_without_descriptors_it_says_why_it_does_not_start(
    tmp_path: Path, limit: int
) -> None:
    limits = (limit, limit)
    places = ("--control", str(tmp_path / "c"), "--varlink", str(tmp_path / "v"))
    kept = ("--socket-path", str(tmp_path / "s"), "--state-directory", str(tmp_path / "state"))
    done = said_anew(
        *("--software", *places, *kept),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
    )
    assert done.returncode == 1
    assert "could not start: Too many open files" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("connected", [True, False])
async def test_the_socket_may_be_handed_over(tmp_path: Path, connected: bool) -> None:
    path = tmp_path / "front-end"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    handed = listening
    if connected:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.connect(str(path))
        handed, _ = listening.accept()
    process = BackEndProcess(tmp_path, front_ends=("--fd", "0"), stdin=handed.fileno())
    await asyncio.to_thread(process.ready)
    if connected:
        handed.close()
        listening.close()
        assert (await process.ask("status"))["phase"] == "connected"
        ours.close()
    else:
        async with process.vmm() as vmm:
            await vmm.start()
        listening.close()
    assert await asyncio.to_thread(process.wait) == 0


# --- what outlives it ---


async def test_a_process_that_was_killed_comes_back_with_all_that_the_guest_had_set(
    tmp_path: Path,
) -> None:
    guest = new_guest()
    async with running(tmp_path) as process, process.vmm(guest) as vmm:
        await vmm.start()
        for command in COMMANDS:
            assert await vmm.command(command.encode()) == OK
        captured = (await process.ask("capture"))["state"]
        process.kill()
    # Where the used rings stand.
    bases = [0] * 8 + [len(COMMANDS)]
    async with running(tmp_path) as process:
        (recalled,) = process.events("settings-recalled")
        assert recalled["directory"] == str(process.state)
        assert (await process.ask("capture"))["state"] == captured
        async with process.vmm(guest) as vmm:
            await vmm.start(bases)
            assert (await process.ask("capture"))["state"] == captured
            assert (await process.ask("status"))["report"]["applied"] > 0
            assert await vmm.loop(b"packet", pair=1) == b"packet"
            assert await vmm.command(VlanAdd(9).encode()) == OK
            captured = (await process.ask("capture"))["state"]
    # Ended by its front end, and so it is after that.
    async with running(tmp_path) as process:
        assert (await process.ask("capture"))["state"] == captured
        async with process.vmm() as vmm:
            await vmm.start()
            assert "vlans" not in (await process.ask("capture"))["state"]
            process.kill()
    async with running(tmp_path) as process:
        assert "vlans" not in (await process.ask("capture"))["state"]
    guest.close()


async def test_a_state_of_another_user_s_guest_is_not_given_back(tmp_path: Path) -> None:
    async with running(tmp_path) as process, process.vmm() as vmm:
        await vmm.start()
        assert await vmm.command(VlanAdd(7).encode()) == OK
        process.kill()
    # As if it had been another's.
    _change_owner(process.state / "guest.state", os.getuid() + 1)
    async with running(tmp_path) as process:
        assert (await process.ask("capture"))["state"]["vlans"] == [7]
        async with process.vmm() as vmm:
            await vmm.front_end.number(1)
            assert (await process.ask("capture"))["state"] is None
            (dropped,) = process.events("settings-dropped")
            assert (dropped["owner"], dropped["user"]) == (os.getuid() + 1, os.getuid())
            # It goes on, by its queues, and is given nothing.
            await vmm.start([0] * 8 + [1])
            (started,) = process.events("device-started", "guest-restored")
            assert (started["event"], started["goes_on"]) == ("device-started", True)


def _change_owner(path: Path, uid: int) -> None:
    kept = decode_file(path.read_bytes())
    path.write_bytes(encode_file(kept.recorder.state(), (), uid, {}))


async def test_where_nothing_can_be_kept_it_serves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    async with running(tmp_path) as process, process.vmm() as vmm:
        await vmm.start()
        assert await vmm.command(VlanAdd(7).encode()) == OK
        (event,) = process.events("settings-not-kept")
        assert "expected a directory for state" in event["reason"]


def test_its_start_waits_for_nothing_that_only_few_need() -> None:
    """numpy marks what is written while memory is logged; Prometheus' library writes metrics."""
    code = f"import sys, {MODULE}; print(*{{'numpy', 'prometheus_client'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# --- what it says ---


def test_its_capabilities_are_as_qemu_s_conventions_have_them() -> None:
    done = said("--print-capabilities")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"type": "net", "features": []}


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--socket-path", "/nowhere/x"], 2, "--vhost-vdpa --software is required"),
        (["--software=tap", "--socket-path", "x"], 2, "expected loop, or tap: and the name of"),
        (["--software=tap:", "--socket-path", "x"], 2, "expected loop, or tap: and the name of"),
        (["--software=tap:a/b", "--socket-path", "x"], 2, "expected loop, or tap: and the name"),
        (["--software=tap:~a", "--socket-path", "x"], 2, "argument --software: expected a name"),
        (["--software", "--name", "a/b"], 2, "argument --name"),
        (["--software", "--name", ".."], 2, "argument --name"),
        (["--software", "--fd", "3", "--socket-path", "x"], 2, "not allowed with"),
        (
            ["--software", "--shared-address-space", "--socket-path", "x"],
            2,
            "--shared-address-space: not allowed with argument --software",
        ),
        (
            ["--software", "--socket-path", "x", "--qmp", "./x"],
            2,
            "another path than --socket-path",
        ),
        (["--software", "--socket-path", "x", "--nic", "y"], 2, "--nic: expected --qmp beside it"),
        *[
            (["--software", "--socket-path", "x", f"--{each}", "x" * 108], 2, f"{each}: expected a")
            for each in ("qmp", "control", "varlink", "socket-path")
        ],
        *[
            (["--software", "--socket-path", "x", "--mac", each], 2, "--mac: expected one card's")
            for each in ("52:54:00:12:34", "01:00:5e:00:00:01", "00:00:00:00:00:00", "", "x")
        ],
        (["--software"], 2, "expected --socket-path, --fd or a socket of systemd's"),
        (["--software", "--fd", "9" * 20], 2, "--fd: expected a descriptor, 0 to 2147483647"),
        (["--software", "--fd", "-1"], 2, "--fd: expected a descriptor, 0 to 2147483647"),
        (["--software", "--allow-uid", "-1"], 2, "--allow-uid: expected a uid, 0 to 4294967294"),
        (["--software", "--allow-uid", "99999999999"], 2, "--allow-uid: expected a uid"),
        (["--vhost-vdpa", "", "--socket-path", "x"], 2, "argument --vhost-vdpa: expected"),
        (["--vhost-vdpa", "/", "--socket-path", "x"], 2, "argument --vhost-vdpa: expected"),
        (["--software", "--fd", "99"], 1, "descriptor 99"),
        (["--software", "--socket-path", "/nowhere/x"], 1, "/nowhere/x: No such file"),
        (["--vhost-vdpa", "nonesuch", "--socket-path", "/tmp/x"], 1, "nonesuch"),
        (["--vhost-vdpa", "/dev/null", "--socket-path", "/tmp/x"], 1, "/dev/null"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], code: int, what: str
) -> None:
    places = ["--control", str(tmp_path / "c"), "--varlink", str(tmp_path / "v")]
    done = said(*arguments, *places, "--state-directory", str(tmp_path / "state"))
    assert (done.returncode, done.stdout) == (code, "")
    assert what in done.stderr
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
        assert sorted(each.name for each in tmp_path.iterdir()) in ([], ["state"])


def test_a_socket_that_is_neither_connected_nor_listens_is_refused(tmp_path: Path) -> None:
    places = ("--control", str(tmp_path / "c"), "--varlink", str(tmp_path / "v"))
    kept = ("--state-directory", str(tmp_path / "state"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as handed:
        fd = handed.fileno()
        done = said_anew("--software", "--fd", str(fd), *places, *kept, pass_fds=[fd])
    assert done.returncode == 1
    assert f"descriptor {fd} (--fd), or a socket that listens, got one that is" in done.stderr


async def test_the_same_over_varlink(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        with VarlinkCaller(process.varlink, "org.varlink.service") as caller:
            about = await caller.call("GetInfo")
        assert about["product"] == "vdpad-vhost-user"
        assert "io.vdpad.BackEnd" in about["interfaces"]


# --- a guest that moves ---


async def test_what_was_loaded_outlives_the_process_and_is_the_next_front_end_s(
    tmp_path: Path,
) -> None:
    guest = new_guest()
    state = {"version": 1, "features": FEATURES.names(sorted(PLAIN)), "vlans": [7]}
    process = await asyncio.to_thread(BackEndProcess(tmp_path).ready)
    report = await process.ask("load", state=state, rings=[{"queue": 8, "base": 1}])
    assert report["outcome"] == "restored"
    assert (await process.ask("status"))["report"] == report
    await asyncio.to_thread(process.kill)
    async with running(tmp_path, "--stay") as process:
        captured = await process.ask("capture")
        assert captured["state"] == state
        assert captured["rings"] == [{"queue": 8, "base": 1}]
        async with process.vmm(guest) as vmm:
            await vmm.start([0] * 8 + [1])
            assert (await process.ask("capture"))["state"]["vlans"] == [7]
    guest.close()


async def test_what_works_in_order_tells_where_it_stands(tmp_path: Path) -> None:
    guest = new_guest()
    program = (sys.executable, "-m", "tests.backend.unsuspendable_process")
    started = running(tmp_path, "--in-order", program=program)
    async with started as process, process.vmm(guest) as vmm:
        await vmm.start()
        assert await vmm.loop(b"packet") == b"packet"
        assert await vmm.stop() == [1, 1, *[0] * 7]
    guest.close()


async def test_a_rehearsal_may_be_left_out(tmp_path: Path) -> None:
    guest = new_guest()
    async with running(tmp_path, "--stay", "--no-rehearsal") as process:
        async with process.vmm(guest) as vmm:
            await vmm.start()
            assert await vmm.command(VlanAdd(7).encode()) == OK
            bases = await vmm.stop()
            data = await vmm.save()
        async with process.vmm(guest) as vmm:
            await vmm.agree()
            assert await vmm.load(data) == 0
            await vmm.start(bases)
            assert (await process.ask("capture"))["state"]["vlans"] == [7]
        (event,) = process.events("state-loaded")
        assert (event["rehearsed"], event["duration_us"]) == (False, 0)
        (event,) = process.events("state-saved")
        assert event["bytes"] == len(data)
    guest.close()


@pytest.mark.parametrize("folder_was_there", [False, True])
@pytest.mark.parametrize("device", ["nonesuch", "software"])
def test_a_start_that_fails_leaves_no_folder_of_its_own(
    tmp_path: Path, folder_was_there: bool, device: str
) -> None:
    """The software device fails later than one that is not there: its control socket is taken."""
    folder = tmp_path / "net0"
    if folder_was_there:
        folder.mkdir()
    (tmp_path / "taken").mkdir()
    options = ["--name", "net0", "--socket-path", str(tmp_path / "s")]
    options += ["--control", str(tmp_path / "taken")]
    options += ["--software"] if device == "software" else ["--vhost-vdpa", device]
    program = f"""
import pathlib, sys
from vdpad.cli import vdpad_vhost_user
vdpad_vhost_user.BACK_ENDS = pathlib.Path({str(tmp_path)!r})
sys.exit(vdpad_vhost_user.main({options!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, done.stderr
    assert folder.exists() == folder_was_there
