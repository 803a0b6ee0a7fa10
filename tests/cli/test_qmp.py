"""The QMP client, against a peer that does what QEMU does and what nobody should."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.cli.qmp_peer import GREETING, TIMEOUT, lines, peer
from vdpad.cli.failures import QmpError
from vdpad.cli.qmp import CommandError, Qmp


def test_it_greets_and_asks(tmp_path: Path) -> None:
    event = {"event": "STOP", "data": {}}
    answers = (
        lines(event, GREETING),
        lines({"return": {}}),
        lines(event, event, {"return": [1]}, event),
        lines({"return": {"a": "b"}}),
    )
    with peer(tmp_path, *answers) as (path, heard), Qmp(path, TIMEOUT) as qmp:
        assert qmp.execute("one") == [1]
        assert qmp.execute("two", path="/x") == {"a": "b"}
    assert heard == [
        {"execute": "qmp_capabilities", "arguments": {}},
        {"execute": "one", "arguments": {}},
        {"execute": "two", "arguments": {"path": "/x"}},
    ]


def test_an_error_of_qemu_s(tmp_path: Path) -> None:
    error = {"error": {"class": "CommandNotFound", "desc": "no such thing"}}
    with (
        peer(tmp_path, lines(GREETING), lines({"return": {}}), lines(error)) as (path, _),
        Qmp(path, TIMEOUT) as qmp,
        pytest.raises(CommandError, match="one: no such thing") as refused,
    ):
        qmp.execute("one")
    assert refused.value.kind == "CommandNotFound"


def test_an_answer_in_many_pieces(tmp_path: Path) -> None:
    long = lines({"return": "x" * 300_000})
    with (
        peer(tmp_path, lines(GREETING), lines({"return": {}}), long) as (path, _),
        Qmp(path, TIMEOUT) as qmp,
    ):
        assert qmp.execute("one") == "x" * 300_000


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_line_s_end_may_come_alone(pieces: int, tmp_path: Path) -> None:
    said = (lines(GREETING), lines({"return": {}}), lines({"return": 5}))
    with peer(tmp_path, *said, pieces=pieces) as (path, _), Qmp(path, TIMEOUT) as qmp:
        assert qmp.execute("one") == 5


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((b"",), "closed the connection"),
        ((b'{"QMP": ',), "closed the connection"),
        ((b"SSH-2.0-OpenSSH\r\n",), "this is not QMP"),
        ((b"[]\n",), "expected a JSON object"),
        ((b'{"QMP": 1, "QMP": 2}\n',), "this is not QMP"),
        ((lines({"hello": 1}),), "greeting"),
        ((lines(GREETING), b""), "closed the connection"),
        ((lines(GREETING), lines({"return": {}}), lines({"neither": 1})), "an answer of QMP's"),
        ((lines(GREETING), lines({"return": {}}), lines({"error": "x"})), "an answer of QMP's"),
        ((lines(GREETING), lines({"return": {}}), b"{" * (5 << 20)), "a line of over"),
    ],
)
def test_what_is_no_qmp(said: tuple[bytes, ...], why: str, tmp_path: Path) -> None:
    def ask(path: Path) -> None:
        with Qmp(path, TIMEOUT) as qmp:
            qmp.execute("one")

    with peer(tmp_path, *said) as (path, _), pytest.raises(QmpError, match=why):
        ask(path)


def test_nobody_waits_forever(tmp_path: Path) -> None:
    start = time.monotonic()
    with (
        peer(tmp_path, b"", hold=True) as (path, _),
        pytest.raises(QmpError, match="one client of a monitor at a time"),
    ):
        Qmp(path, 0.2)
    assert 0.2 <= time.monotonic() - start < TIMEOUT


def test_events_without_an_end_are_no_answer(tmp_path: Path) -> None:
    """The time limit is for all of it, however much comes."""
    path = tmp_path / "qmp"
    event = lines({"event": "X"}) * 1000

    def serve() -> None:
        connection, _ = listener.accept()
        # Until the client hangs up.
        with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                connection.sendall(event)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        start = time.monotonic()
        with pytest.raises(QmpError, match="no answer in time"):
            Qmp(path, 0.3)
        assert time.monotonic() - start < TIMEOUT
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize("name", ["none", "file", "x" * 200])
def test_nobody_is_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QmpError, match="expected QEMU's QMP socket"):
        Qmp(tmp_path / name, TIMEOUT)


def test_an_answer_that_holds_more_than_any_of_qemu_s_is_refused(tmp_path: Path) -> None:
    much = lines({"return": [[]] * 20_000})
    with (
        peer(tmp_path, lines(GREETING), lines({"return": {}}), much) as (path, _),
        Qmp(path, TIMEOUT) as qmp,
        pytest.raises(QmpError, match="not QMP: expected JSON of at most 16384 containers"),
    ):
        qmp.execute("one")
