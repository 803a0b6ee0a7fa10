"""The kit in C and Rust against a daemon that says nothing, too much, or what makes no sense.

Also what a VMM has from others: a name or a state may be a guest's or another host's.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import run
from tests.kit.building import SANITIZED, compiled_c, compiled_rust

MAX_DATAGRAM = 200 * 1024
RESTORED = {
    "outcome": "restored",
    "ring": {"next_available": 3, "next_used": 3},
    "device_must_reset": False,
}

Say = Callable[[bytes], bool]
"""Sends it to who asked; whether he is still there."""


@pytest.fixture(scope="module", params=["C", "Rust"])
def asking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prepares and commits."""
    source, folder = Path(__file__), tmp_path_factory.mktemp("asking")
    if request.param == "Rust":
        return compiled_rust(folder / "asking", source.with_name("asking.rs"))
    return compiled_c(folder / "asking", source.with_name("asking.c"), more=SANITIZED)


def _serve(daemon: socket.socket, reply: Callable[[int, Say], object], asked: list[Any]) -> None:
    """Until it is sent nothing."""
    while True:
        data, fds, _, sender = socket.recv_fds(daemon, MAX_DATAGRAM, 3)
        for each in fds:
            socket.close(each)
        if not data:
            return

        def say(text: bytes, to: Any = sender) -> bool:
            try:
                daemon.sendto(text, to)
            except OSError:
                return False
            return True

        asked.append(json.loads(data))
        reply(asked[-1]["id"], say)


@contextmanager
def answering(path: Path, reply: Callable[[int, Say], object]) -> Iterator[list[Any]]:
    """A daemon's socket, behind which nobody restores anything; gives what it is asked."""
    asked: list[Any] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        thread = threading.Thread(target=_serve, args=(daemon, reply, asked))
        thread.start()
        try:
            yield asked
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stopping:
                stopping.sendto(b"", str(path))
            thread.join()


def _heard(asking: Path, path: Path, migration: str = "vm", state: str = "{}") -> list[str]:
    done = run(asking, path, migration, state)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def _is_silent(_: int, __: Say) -> None:
    pass


def _answers_others(number: int, say: Say) -> None:
    while say(_reply(number + 7, result=RESTORED)):
        pass


def _answers_twice(number: int, say: Say) -> None:
    say(_reply(number, result=RESTORED))
    say(_reply(number, error={"message": "no", "data": {"kind": "busy"}}))


def _reply(number: int, **what: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, **what}).encode()


@pytest.mark.parametrize("reply", [_is_silent, _answers_others])
def test_neither_signals_nor_others_replies_put_the_end_off(
    asking: Path, tmp_path: Path, reply: Callable[[int, Say], object]
) -> None:
    with answering(tmp_path / "s", reply):
        heard = _heard(asking, tmp_path / "s")
    assert heard == ["prepare: timed out", "commit: timed out", "reset: yes"]


def test_a_second_reply_is_nobodys(asking: Path, tmp_path: Path) -> None:
    with answering(tmp_path / "s", _answers_twice):
        assert _heard(asking, tmp_path / "s") == ["prepare: done", "commit: done", "reset: no"]


@pytest.mark.parametrize(
    "rest",
    [
        b"}",
        b',"result":null}',
        b',"result":[',
        b',"error":{"message":"no"}}',
        b',"error":{"message":"no","data":{"kind":""}}}',
        b',"error":{"message":"n',
        b',"error":null}',
    ],
)
def test_what_makes_no_sense_is_no_success(asking: Path, tmp_path: Path, rest: bytes) -> None:
    with answering(tmp_path / "s", lambda number, say: say(b'{"id":%d' % number + rest)):
        heard = _heard(asking, tmp_path / "s")
    assert heard == ["prepare: no sense", "commit: no sense", "reset: yes"]


@pytest.mark.parametrize(
    "ring", [None, {}, {"next_available": 65536, "next_used": 0}, {"next_available": -1}]
)
def test_without_the_ring_s_index_nothing_was_restored(
    asking: Path, tmp_path: Path, ring: Any
) -> None:
    said = {**RESTORED, "ring": ring}
    with answering(tmp_path / "s", lambda number, say: say(_reply(number, result=said))):
        assert _heard(asking, tmp_path / "s")[1:] == ["commit: no sense", "reset: yes"]


def test_a_report_that_leaves_the_reset_open_asks_for_one(asking: Path, tmp_path: Path) -> None:
    error = {"message": "no", "data": {"kind": "timeout", "report": {"commands": 3}}}
    with answering(tmp_path / "s", lambda number, say: say(_reply(number, error=error))):
        assert _heard(asking, tmp_path / "s")[1:] == ["commit: timeout", "reset: yes"]


@pytest.mark.parametrize(
    "migration", ["", "a" * 129, 'a","committer":0,"b":"', "a\\", "a\n", "ä", "a b"]
)
def test_a_name_that_is_none_is_not_sent(asking: Path, tmp_path: Path, migration: str) -> None:
    with answering(tmp_path / "s", _answers_twice) as asked:
        heard = _heard(asking, tmp_path / "s", migration)
    assert heard[:2] == ["prepare: not sent", "commit: not sent"]
    assert asked == []


@pytest.mark.parametrize("state", ["", "null", '{"a":"}"},"committer":0', "{}{}", '{},"a":{}'])
def test_a_state_says_nothing_but_a_state(asking: Path, tmp_path: Path, state: str) -> None:
    with answering(tmp_path / "s", _answers_twice) as asked:
        assert _heard(asking, tmp_path / "s", state=state)[0] == "prepare: not sent"
    assert [each["method"] for each in asked] == ["commit"]


def test_a_name_and_a_state_are_sent_as_they_are(asking: Path, tmp_path: Path) -> None:
    name, state = "A-z0.9_:/" * 14, ' {"a": "}\\"", "b": [{}, {}]}\n'
    with answering(tmp_path / "s", _answers_twice) as asked:
        _heard(asking, tmp_path / "s", name, state)
    params = {"migration": name, "state": json.loads(state), "target": {}}
    assert [each["params"] for each in asked] == [params, {"migration": name}]
