"""The socket as a file, and the daemon's start and end."""

import asyncio
import contextlib
import fcntl
import grp
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import held, held_wish, lending
from tests.daemon.support import (
    Caller,
    is_error,
    is_report,
    request,
    serving,
    software,
    until_state,
    vlans,
)
from tests.support.daemon import ROOT, VDPAD, Daemon, daemon, refused, running
from tests.support.waiting import GUARD, until
from vdpad.daemon.process import SocketGone, run
from vdpad.daemon.settings import Settings
from vdpad.service.endpoints.binding import CannotListen
from vdpad.wire.datagrams import AncillarySocket

# Linux's fcntl.h.
F_SETPIPE_SZ = 1031


async def answers(path: Path) -> None:
    with Caller(path) as caller:
        assert (await caller.result("info"))["name"] == "vdpad"


# --- mode and group ---


@pytest.mark.parametrize(
    ("configured", "mode"),
    [({}, 0o660), ({"socket_mode": "0600"}, 0o600), ({"socket_mode": "666"}, 0o666)],
)
async def test_the_socket_has_the_configured_mode(
    tmp_path: Path, configured: dict[str, str], mode: int
) -> None:
    async with serving(tmp_path, **configured) as path:
        status = await asyncio.to_thread(path.stat)
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == mode
        assert status.st_uid == os.getuid()


async def test_the_umask_is_left_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        async with serving(tmp_path):
            assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def a_group() -> grp.struct_group:
    """One that this process may give files to, if possible not its own."""
    gids = [*os.getgroups(), os.getgid()]
    if os.getuid() == 0:
        gids = [each.gr_gid for each in grp.getgrall() if each.gr_gid != os.getgid()]
    return grp.getgrgid(gids[0])


async def test_the_socket_is_given_to_the_configured_group(tmp_path: Path) -> None:
    group = a_group()
    async with serving(tmp_path, socket_group=group.gr_name) as path:
        assert (await asyncio.to_thread(path.stat)).st_gid == group.gr_gid


async def test_a_group_that_is_not_there_is_told_and_leaves_no_socket(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="no-such-group"):
        async with serving(tmp_path, socket_group="no-such-group"):
            pass
    assert os.listdir(tmp_path) == []


# --- what is there already ---


def test_a_socket_that_nobody_listens_on_any_more_is_replaced(tmp_path: Path) -> None:
    dead = Daemon(tmp_path).ready()
    dead.process.kill()
    dead.process.wait()
    assert dead.socket.is_socket()
    with daemon(tmp_path) as living:
        asyncio.run(answers(living.socket))


def test_a_living_daemon_is_not_taken_over(tmp_path: Path) -> None:
    with daemon(tmp_path) as living:
        before = living.socket.stat().st_ino
        said = refused("--socket", str(living.socket))
        assert str(living.socket) in said
        assert "another process listens" in said
        assert living.socket.stat().st_ino == before
        asyncio.run(answers(living.socket))


def a_file(path: Path) -> None:
    path.write_text("precious")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_file(path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("make", [a_file, a_folder, a_fifo, a_link_to_a_file, a_dangling_link])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "vdpad.sock"
    make(path)
    before = {each: each.lstat() for each in tmp_path.iterdir()}
    assert str(path) in refused("--socket", str(path))
    assert {each: each.lstat() for each in tmp_path.iterdir()} == before


def test_a_stream_socket_that_is_listened_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vdpad.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        assert str(path) in refused("--socket", str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))


def in_no_folder(folder: Path) -> str:
    return str(folder / "none" / "vdpad.sock")


def below_a_file(folder: Path) -> str:
    (folder / "file").write_text("")
    return str(folder / "file" / "vdpad.sock")


def too_long(folder: Path) -> str:
    return str(folder / ("x" * 108))


def with_a_name_too_long(folder: Path) -> str:
    return str(folder / ("x" * 300))


def in_a_loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return str(folder / "loop" / "vdpad.sock")


@pytest.mark.parametrize(
    "where", [in_no_folder, below_a_file, too_long, with_a_name_too_long, in_a_loop]
)
def test_a_path_that_cannot_be_had_is_told_in_a_line(
    tmp_path: Path, where: Callable[[Path], str]
) -> None:
    path = where(tmp_path)
    said = refused("--socket", path)
    assert path in said
    assert "None" not in said


# --- the end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_the_socket(tmp_path: Path, number: signal.Signals) -> None:
    with daemon(tmp_path) as running:
        asyncio.run(answers(running.socket))
        running.process.send_signal(number)
        assert running.wait() == 0
        assert not running.socket.exists()
        assert "Traceback" not in running.log()


def test_the_socket_of_another_that_took_the_path_is_left_alone(tmp_path: Path) -> None:
    """As where somebody removed the file of a daemon that still ran, and started a second."""
    with daemon(tmp_path) as first:
        # Its socket is there before it has its mode.
        asyncio.run(answers(first.socket))
        first.socket.unlink()
        with daemon(tmp_path) as second:
            first.terminate()
            assert first.wait() == 0
            asyncio.run(answers(second.socket))


async def test_a_commit_under_way_at_the_signal_ends_and_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon, lending(start=False) as lender:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            await caller.send(request("restore", "slow", **held_wish(lender)), lender.fds)
            await until_state(other, "vm-1", "committing")
            daemon.terminate()
            # It stays for as long as the commit does.
            await asyncio.sleep(0.2)
            assert daemon.process.poll() is None
            lender.device.start()
            reply = await caller.receive()
            assert reply["id"] == "slow"
            assert is_report(reply["result"], "restored")
            assert await asyncio.to_thread(daemon.wait) == 0
            assert not daemon.socket.exists()
            assert "Traceback" not in daemon.log()


async def test_a_commit_under_way_at_the_signal_ends_at_its_deadline(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon, lending(start=False) as lender:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            wish = {**held_wish(lender), "deadline_ms": 600}
            await caller.send(request("restore", "slow", **wish), lender.fds)
            # Which comes after it: a signal is looked at before what stands in the socket.
            await other.result("info")
            daemon.terminate()
            reply = await caller.receive()
            assert is_error(reply["error"], "timeout", "report")
            assert await asyncio.to_thread(daemon.wait) == 0


async def test_a_daemon_stops_while_requests_rain_down(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with Caller(daemon.socket, address=None) as nameless:
            wish = {"state": vlans(1), "target": software()}
            for number in range(200):
                await nameless.send(request("restore", 1, migration=f"vm-{number}", **wish))
            daemon.terminate()
            ended = asyncio.create_task(asyncio.to_thread(daemon.wait))
            while not ended.done():
                with contextlib.suppress(OSError):  # its queue is full, or it is gone
                    nameless.socket.sendto(request("info", 1), str(daemon.socket))
                await asyncio.sleep(0)
        assert await ended == 0
        assert "Traceback" not in daemon.log()


async def test_everything_of_the_daemons_is_gone_after_it_stopped(tmp_path: Path) -> None:
    tasks = len(asyncio.all_tasks())
    async with serving(tmp_path, software=[]) as path, held(path) as commit:
        with Caller(path) as caller:
            await caller.send(request("commit", 1, migration="vm-1"), commit.lender.fds)
        await commit.let_go()
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    assert not await asyncio.to_thread(path.exists)
    with Caller(path) as caller, pytest.raises(FileNotFoundError):
        await caller.send(request("info", 1))


# --- its log ---


async def restored_with_log(folder: Path, log: int, reading: int | None = None) -> None:
    """A daemon whose log goes there restores, and is asked often enough to log a lot.

    Args:
        folder: for its socket.
        log: its standard error.
        reading: closed once it listens.
    """
    path = folder / "vdpad.sock"
    process = await asyncio.create_subprocess_exec(
        *VDPAD, "--socket", str(path), cwd=ROOT, stderr=log
    )
    ended = asyncio.create_task(process.wait())
    try:
        await until(lambda: path.is_socket() or ended.done())
        assert not ended.done()
        if reading is not None:
            with Caller(path) as caller:
                await caller.result("info")
            os.close(reading)
        work = asyncio.create_task(restored_often(path))
        await asyncio.wait([work, ended], timeout=GUARD, return_when=asyncio.FIRST_COMPLETED)
        all_answered = work.done()
        work.cancel()
        assert not ended.done()
        assert all_answered
        await work
    finally:
        if not ended.done():
            process.kill()
        await ended


async def restored_often(path: Path) -> None:
    with Caller(path) as caller:
        wish = {"state": vlans(1), "target": software()}
        for number in range(100):
            report = await caller.result("restore", migration=f"vm-{number}", **wish)
            assert is_report(report, "restored")


async def test_a_log_that_nobody_takes_any_more_fails_no_restore(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        await restored_with_log(tmp_path, writing, reading)
    finally:
        os.close(writing)


async def test_a_log_that_nobody_reads_stops_no_restore(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
        await restored_with_log(tmp_path, writing)
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_full_disk_under_the_log_fails_no_restore(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        await restored_with_log(tmp_path, full)
    finally:
        os.close(full)


async def test_no_secret_or_made_up_text_of_a_request_is_logged(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with Caller(daemon.socket) as caller:
            await caller.error("info", **{"\n\x1b[31mforged line": 1})
            await caller.error("commit", migration="\nforged line")
            await caller.error("forged line")
        assert "forged" not in daemon.log()


async def test_a_daemon_whose_socket_is_lost_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio closes it where reading raises what is no OSError; nothing would be heard again."""
    path = tmp_path / "vdpad.sock"

    def recvfrom(_: AncillarySocket, size: int, flags: int = 0) -> tuple[bytes, Any]:
        raise MemoryError

    daemons = asyncio.create_task(run(lambda: Settings.model_validate({"socket": path})))
    await until(path.exists)
    monkeypatch.setattr(AncillarySocket, "recvfrom", recvfrom)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"{}", str(path))
        async with asyncio.timeout(GUARD):
            with pytest.raises(
                SocketGone, match=rf"{path} is read any more: MemoryError.*report it"
            ):
                await daemons
    assert not path.exists()
