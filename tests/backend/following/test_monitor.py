"""A monitor that may be no QEMU's: what it tells, when it is over, and all of it bounded."""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.backend.following.qemu import GREETING, Qemu, listening
from tests.support.descriptors import no_descriptor_left
from tests.support.rx_filter import card
from tests.support.waiting import until
from vdpad.backend.following import monitor
from vdpad.backend.following.monitor import Monitor, MonitorLost, connected
from vdpad.errors import VdpadError
from vdpad.state.found import FormatError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def lines(*messages: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\r\n" for each in messages)


def saying(*said: bytes, then_hold: bool = True) -> Serve:
    """Who says all of this, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in said:
            writer.write(each)
        if then_hold:
            while await reader.read(1 << 16):
                pass
        writer.close()

    return serve


UP = lines(GREETING, {"return": {}})


def answered(answer: object) -> bytes:
    return UP + lines({"id": "__qmp#00000", "return": answer})


async def asked(path: Path, serve: Serve) -> VdpadError:
    """What a query is refused with."""
    with no_descriptor_left():
        async with listening(path, serve):
            with pytest.raises(VdpadError) as raised:
                async with connected(path, lambda: None) as there:
                    await there.rx_filters()
    return raised.value


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"hello\n", "this is not QMP"),
        (b"[]\n", "this is not QMP"),
        (b"\xff\n", "this is not QMP"),
        (b'{"QMP": 1}\n', "this is not QMP"),
        (lines(GREETING, {"error": {}}), "this is not QMP"),
        (b"x" * (3 << 20), "this is not QMP"),
        (b"[" * 100_000 + b"\n", "this is not QMP: expected JSON of at most"),
        (UP + b"[" * 1000 + b"\n", "this is not QMP"),
        (UP + b"7,\n", "this is not QMP"),
        (UP + lines([0] * 100_000), "this is not QMP: expected JSON of at most"),
        (UP + b"x" * (3 << 20), "this is not QMP"),
        (UP + lines({"id": [], "return": []}), "this is not QMP"),
        (UP + lines({"error": {"class": "GenericError", "desc": "?"}}), "this is not QMP"),
        (UP + lines({"id": "__qmp#00000"}), "reply is missing"),
        (UP + lines({"id": "__qmp#00000", "error": {"class": 1}}), "reply is malformed"),
        (UP + lines({"id": "__qmp#00000", "error": {"class": "A", "desc": "no"}}), "no"),
    ],
)
async def test_who_is_no_qemu(tmp_path: Path, said: bytes, expected: str) -> None:
    error = await asked(tmp_path / "qmp", saying(said))
    assert isinstance(error, MonitorLost)
    assert expected in str(error)
    assert str(error).startswith(f"{tmp_path / 'qmp'}: ")
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [1],
        [{}],
        [card(unicast="some")],
        [card(main_mac="52:54")],
        [card(vlan_table=["1"])],
        [card(unicast_table=["x"] * 1000)],
        [card(promiscuous=1)],
    ],
)
async def test_what_is_no_filter(tmp_path: Path, answer: object) -> None:
    error = await asked(tmp_path / "qmp", saying(answered(answer)))
    assert isinstance(error, FormatError)


@pytest.mark.parametrize("said", [b"", b"half", lines(GREETING), UP])
async def test_who_hangs_up(tmp_path: Path, said: bytes) -> None:
    error = await asked(tmp_path / "qmp", saying(said, then_hold=False))
    assert isinstance(error, MonitorLost)


@pytest.mark.parametrize("said", [b"", lines(GREETING), UP])
async def test_who_does_not_answer(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.05)
    error = await asked(tmp_path / "qmp", saying(said))
    assert "no answer in 0.05 s" in str(error)


async def test_answers_that_come_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.5)
    path = tmp_path / "qmp"
    twice = UP + lines(*[{"id": f"__qmp#0000{at}", "return": []} for at in (0, 0, 0, 1)])
    with no_descriptor_left():
        async with listening(path, saying(twice)), connected(path, lambda: None) as there:
            with pytest.raises(MonitorLost):
                await ask_without_end(there)


def answer_without_reading(listener: socket.socket) -> None:
    """Answers queries that it has not read, over and over, until nobody hears it."""
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.sendall(UP)
        while True:
            for at in range(2000):
                connection.sendall(lines({"id": f"__qmp#{at:05d}", "return": []}))
                time.sleep(0.0005)


async def ask_without_end(there: Monitor) -> None:
    while True:
        await there.rx_filters()


async def test_who_reads_nothing(tmp_path: Path) -> None:
    with no_descriptor_left(), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp"))
        listener.listen()
        answering = asyncio.create_task(asyncio.to_thread(answer_without_reading, listener))
        async with connected(tmp_path / "qmp", lambda: None) as there:
            with pytest.raises(MonitorLost, match="expected queries to be read"):
                await ask_without_end(there)
        await answering


async def test_events_without_end_keep_nobody_else_waiting(tmp_path: Path) -> None:
    path, qemu, changes = tmp_path / "qmp", Qemu(), 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    with no_descriptor_left():
        async with listening(path, qemu.serve), connected(path, changed) as there:
            flood = lines({"event": "NIC_RX_FILTER_CHANGED"}, {"event": ["RTC_CHANGE"]}) * 5000
            qemu.say_bytes(flood)
            turns = 0
            while changes < 5000:
                await asyncio.sleep(0)
                turns += 1
            # One message a turn of the loop.
            assert turns > 5000
            assert there._client.events.history == ()
            assert len(await there.rx_filters()) == 1


async def test_the_end_is_told(tmp_path: Path) -> None:
    path, qemu, told = tmp_path / "qmp", Qemu(), asyncio.Event()
    async with listening(path, qemu.serve), connected(path, told.set) as there:
        assert len(await there.rx_filters()) == 1
        assert not told.is_set()
        qemu.hang_up()
        await told.wait()
        with pytest.raises(MonitorLost, match="QEMU closed the connection"):
            await there.rx_filters()


async def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(MonitorLost, match="expected QEMU's QMP socket: No such file"):
        async with connected(tmp_path / "qmp", lambda: None):
            pass


async def test_the_netdev_of_a_card(tmp_path: Path) -> None:
    path, qemu = tmp_path / "qmp", Qemu()
    qemu.netdevs = {"/machine/peripheral/nic0": "net0", "/machine/peripheral/odd": 3}  # type: ignore[dict-item]
    async with listening(path, qemu.serve), connected(path, lambda: None) as there:
        assert await there.netdev_of("nic0") == "net0"
        assert await there.netdev_of("odd") is None
        assert await there.netdev_of("none") is None


async def test_it_may_be_cancelled_at_any_turn(tmp_path: Path) -> None:
    path, qemu = tmp_path / "qmp", Qemu()

    async def use() -> None:
        async with connected(path, lambda: None) as there:
            while True:
                await there.rx_filters()

    with no_descriptor_left():
        async with listening(path, qemu.serve):
            for turns in range(60):
                task = asyncio.create_task(use())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
    await until(lambda: len(asyncio.all_tasks()) == 1)
