"""What the daemon and a service manager tell each other; the tests are the manager."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Self

import pytest
from structlog.testing import capture_logs

from tests.daemon.support import Caller, request
from tests.support.daemon import ROOT
from tests.support.forker import Child, forker_of
from tests.support.waiting import GUARD
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.systemd.notify import (
    Notifier,
    OddEnvironment,
    keep_alive,
    keep_extending,
    take_inherited,
    take_notifier,
    take_watchdog,
)
from vdpad.wire.datagrams import AncillarySocket

# Hands its standard input over as descriptor 3, sets LISTEN_PID to its own, and becomes the rest.
HAND_OVER = ("sh", "-c", 'exec 3<&0 </dev/null; export LISTEN_PID=$$; exec "$@"', "sh")

TAKE = """
import os
from vdpad.service.systemd.notify import take_inherited
taken = take_inherited(os.environ)
print([(each.fd, each.name, os.get_inheritable(each.fd)) for each in taken],
      [name for name in os.environ if name.startswith("LISTEN_")])
"""


class Manager:
    """The other end of NOTIFY_SOCKET, for the time of a context."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(GUARD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def told(self) -> dict[str, str]:
        """The next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def told_with_fds(self) -> tuple[bytes, list[int]]:
        """The next message, and what rode on it."""
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
        return data, fds


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    """A manager, and what NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify")
    address = name if request.param == "path" else f"\0{name}"
    with Manager(address) as there:
        yield there, address.replace("\0", "@")


# --- notifications ---


def test_what_is_told(manager: tuple[Manager, str]) -> None:
    there, address = manager
    environment = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
    notifier = take_notifier(environment)
    assert environment == {"PATH": "/bin"}
    notifier.ready("Listening")
    assert there.told() == {"READY": "1", "STATUS": "Listening"}
    notifier.alive()
    assert there.told() == {"WATCHDOG": "1"}
    notifier.extend(1.5)
    assert there.told() == {"EXTEND_TIMEOUT_USEC": "1500000"}
    notifier.stopping("Bye")
    assert there.told() == {"STOPPING": "1", "STATUS": "Bye"}


def test_a_reload_is_told_with_the_time(manager: tuple[Manager, str]) -> None:
    there, address = manager
    before = time.monotonic()
    Notifier(address).reloading()
    told = there.told()
    assert told.pop("RELOADING") == "1"
    assert before <= int(told.pop("MONOTONIC_USEC")) / 1e6 + 1e-6 <= time.monotonic() + 1e-6
    assert not told


def test_a_descriptor_is_stored(manager: tuple[Manager, str]) -> None:
    there, address = manager
    reading, writing = os.pipe()
    Notifier(address).store("vp0", writing)
    data, (copy,) = there.told_with_fds()
    assert data == b"FDSTORE=1\nFDNAME=vp0\nFDPOLL=0"
    os.write(copy, b"x")
    assert os.read(reading, 2) == b"x"
    for each in (reading, writing, copy):
        os.close(each)


def test_forgetting_ends_when_all_of_it_was_read(manager: tuple[Manager, str]) -> None:
    there, address = manager
    forgetting = threading.Thread(target=Notifier(address).forget, args=[["vp0", "vp1"]])
    forgetting.start()
    assert there.told() == {"FDSTOREREMOVE": "1", "FDNAME": "vp0"}
    assert there.told() == {"FDSTOREREMOVE": "1", "FDNAME": "vp1"}
    data, (barrier,) = there.told_with_fds()
    assert data == b"BARRIER=1"
    forgetting.join(0.05)
    assert forgetting.is_alive()
    os.close(barrier)
    forgetting.join(5)
    assert not forgetting.is_alive()


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    take_notifier({}).ready("Listening")
    Notifier(str(tmp_path / "gone")).ready("Listening")


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with Manager(address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                filling.sendto(b"", address)
        notifier = Notifier(address)
        began = time.monotonic()
        notifier.alive()
        assert time.monotonic() - began < 0.5
        notifier.ready("Listening")
        assert 0.5 < time.monotonic() - began < 5


NO_UNIX_SOCKETS = ["", "notify", "vsock:2:1234", "vsock-stream:2:1234", "tcp:192.0.2.1:7"]


@pytest.mark.parametrize("address", NO_UNIX_SOCKETS)
def test_a_notify_socket_that_is_no_unix_socket_is_warned_of(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address}
    with capture_logs() as events:
        notifier = take_notifier(environment)
        notifier.ready("Listening")
        notifier.alive()
    (warning,) = events
    assert warning["log_level"] == "warning"
    assert "NOTIFY_SOCKET" in warning["event"]
    assert warning["got"] == address
    assert environment == {}
    assert not notifier.is_heard


@pytest.mark.parametrize("address", ["", "vsock:2:1234"])
def test_a_daemon_serves_whatever_its_notify_socket_is(tmp_path: Path, address: str) -> None:
    path = tmp_path / "vdpad.sock"
    with bound(path) as unit, Caller(path) as caller:
        asyncio.run(caller.send(request("info", 1)))
        told = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"}
        with handed_to(unit.fileno(), **told) as (daemon, log):
            assert asyncio.run(caller.receive())["result"]["name"] == "vdpad"
            daemon.send_signal(signal.SIGTERM)
            assert log.read().count(b"NOTIFY_SOCKET") == 1
            assert daemon.wait(GUARD) == 0


# --- the watchdog ---


def test_the_watchdog_s_time() -> None:
    environment = {"WATCHDOG_USEC": "3500000", "WATCHDOG_PID": str(os.getpid())}
    assert take_watchdog(environment) == 3.5
    assert environment == {}
    assert take_watchdog({"WATCHDOG_USEC": "20"}) == 2e-5
    assert take_watchdog({}) is None
    assert take_watchdog({"WATCHDOG_USEC": "20", "WATCHDOG_PID": "1"}) is None


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "²", "9" * 20, "soon"])
def test_an_odd_watchdog(text: str) -> None:
    with pytest.raises(OddEnvironment, match="WATCHDOG_USEC: expected a number above 0"):
        take_watchdog({"WATCHDOG_USEC": text})


async def test_a_loop_that_runs_is_told_of_twice_in_the_time(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as there:
        task = asyncio.create_task(keep_alive(Notifier(str(tmp_path / "notify")), 0.4))
        began = time.monotonic()
        for _ in range(4):
            assert (await asyncio.to_thread(there.told)) == {"WATCHDOG": "1"}
        assert 0.55 <= time.monotonic() - began < 1.0  # at 0, 0.2, 0.4, 0.6
        task.cancel()


async def test_a_stop_asks_for_more_time_until_its_end(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as there:
        await asyncio.wait_for(keep_extending(Notifier(str(tmp_path / "notify")), 0.01), 10)
        assert there.told() == {"EXTEND_TIMEOUT_USEC": "20000000"}


# --- what is handed over ---


def handed(**more: str) -> dict[str, str]:
    """An environment with nothing handed over yet."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api", **more}


def test_descriptors_come_with_their_names_and_no_child_gets_them() -> None:
    for names, expected in (("api", "api"), ("", ""), (None, "unknown")):
        given = {} if names is None else {"LISTEN_FDNAMES": names}
        done = subprocess.run(
            [*HAND_OVER, sys.executable, "-c", TAKE],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LISTEN_FDS": "1", **given},
            check=True,
        )
        assert done.stdout == f"[(3, {expected!r}, False)] []\n"


def test_what_was_handed_to_another_process_is_not_ours() -> None:
    environment = handed(LISTEN_PID="1")
    assert take_inherited(environment) == ()
    assert environment == {}
    assert take_inherited({}) == ()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (handed(LISTEN_FDS="x"), "LISTEN_FDS: expected a number above 0"),
        (handed(LISTEN_PID="x"), "LISTEN_PID: expected a number above 0"),
        (handed(LISTEN_FDS="4097"), "LISTEN_FDS: expected at most 4096"),
        (handed(LISTEN_FDNAMES="api:more"), "LISTEN_FDNAMES: expected 1 names"),
        (handed(LISTEN_FDS="4096", LISTEN_FDNAMES=":" * 4095), "to be open"),
    ],
)
def test_an_odd_handing_over(environment: dict[str, str], message: str) -> None:
    with pytest.raises(OddEnvironment, match=message):
        take_inherited(environment)


def test_the_buffer_of_a_socket_that_is_handed_over_is_its_unit_s() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    taken = AncillarySocket(ours.detach())
    assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000
    assert taken.send_buffer == 100_000
    taken.close()
    theirs.close()


# --- the whole daemon ---


def bound(path: Path) -> socket.socket:
    """As systemd binds it."""
    unit = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unit.bind(str(path))
    path.chmod(0o640)
    return unit


@contextmanager
def handed_to(fd: int, *arguments: str, **environment: str) -> Iterator[tuple[Child, IO[bytes]]]:
    """A daemon that is handed this descriptor, for the time of a context, and what it logs."""
    reading, writing = os.pipe()
    with open(reading, "rb") as log, ExitStack() as stack:
        with open(writing, "wb") as its:
            there = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api", **environment}
            forker = forker_of("tests.service.handed_over")
            child = forker.child(*arguments, stdin=fd, stderr=its, env=there)
            daemon = stack.enter_context(child)
        yield daemon, log


def test_from_the_first_datagram_to_the_end(tmp_path: Path) -> None:
    """What was sent before the daemon was there is answered, and the socket's file is left."""
    path, notify = tmp_path / "vdpad.sock", str(tmp_path / "notify")
    elsewhere = ("--socket", str(tmp_path / "not-this"))
    told = {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "60000000"}
    with Manager(notify) as there, bound(path) as unit, Caller(path) as caller:
        asyncio.run(caller.send(request("info", 1)))
        with handed_to(unit.fileno(), *elsewhere, **told) as (daemon, _):
            assert there.told() == {"WATCHDOG": "1"}
            assert there.told() == {"READY": "1", "STATUS": f"Listening on {path}"}
            reply = asyncio.run(caller.receive())
            assert reply["result"]["name"] == "vdpad"
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(GUARD) == 0
        assert there.told()["STOPPING"] == "1"
        assert there.told().keys() == {"EXTEND_TIMEOUT_USEC"}
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o640
        assert not (tmp_path / "not-this").exists()
        # Who asks now waits in the socket until the daemon is started again.
        asyncio.run(caller.send(request("info", 2)))


def test_a_socket_of_another_name_is_not_the_daemon_s(tmp_path: Path) -> None:
    own = ("--socket", str(tmp_path / "vdpad.sock"))
    with (
        bound(tmp_path / "other") as unit,
        handed_to(unit.fileno(), *own, LISTEN_FDNAMES="other") as (_, log),
    ):
        assert own[1].encode() in log.readline()


def refused(fd: int, **environment: str) -> str:
    """What a daemon says that is handed this and must not start."""
    with handed_to(fd, "--socket", "/nowhere/vdpad.sock", **environment) as (daemon, log):
        (line,) = log.read().decode().splitlines()
        assert daemon.wait(GUARD) == 1
        return line


def test_what_is_no_unix_datagram_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "stream"))
        assert "got AF_UNIX and SOCK_STREAM" in refused(stream.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as internet:
        assert "got AF_INET and SOCK_DGRAM" in refused(internet.fileno())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        assert "expected descriptor 3 to be bound to a path" in refused(nameless.fileno())
    reading, writing = os.pipe()
    assert "expected a socket as descriptor 3" in refused(reading)
    assert "WATCHDOG_USEC: expected" in refused(reading, WATCHDOG_USEC="often")
    os.close(reading)
    os.close(writing)


async def test_an_endpoint_that_took_a_socket_over_leaves_its_file(tmp_path: Path) -> None:
    async def nothing(_data: bytes, _peer: object) -> bytes | None:
        return None

    path = tmp_path / "vdpad.sock"
    endpoint = UnixEndpoint(nothing, b"")
    assert await endpoint.take_over(bound(path).detach()) == path
    await endpoint.close()
    assert path.is_socket()
