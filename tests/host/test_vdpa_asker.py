"""The process that asks: it may be slow, stuck, odd or gone, and we are none of these."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from tests.host import children
from tests.support.descriptors import no_descriptor_left
from vdpad.host import vdpa_asker
from vdpad.host.vdpa import (
    AskerFailed,
    NetlinkForbidden,
    NetlinkRefused,
    NetlinkStuck,
    NoSuchVdpaDevice,
    NotLoaded,
    OddReply,
    VdpaError,
)
from vdpad.host.vdpa_asker import Reply, asking, one_conversation

REPLIES: list[Any] = [[["DEV_NAME", "sim0"]]]
ANSWER = {"replies": REPLIES}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a process or a descriptor."""
    global _of_others
    _of_others = _all_children()
    with no_descriptor_left():
        yield
    assert _children() == []


_of_others: set[int] = set()
"""Child processes of other tests, such as a daemon that serves them all."""


def _all_children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return set(map(int, text.split()))


def _children() -> list[int]:
    """A test's child processes, those too that have ended and that nobody waited for."""
    return sorted(_all_children() - _of_others)


def _use(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(vdpa_asker, "COMMAND", children.command(code))


def _kill(pid: int) -> None:
    """Kills a process, and returns when it is dead; it is still there to be waited for."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def _ask(seconds: float = 20.0) -> list[Reply]:
    async with asking(seconds) as asker:
        return await asker.ask("DEV_GET", DEV_NAME="sim0")


# --- answers ---


async def test_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, children.saying(ANSWER))
    assert await _ask() == REPLIES


async def test_many_answers_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import json\nprint('ready', flush=True)\n"
        "for size in (1, 5000, 0):\n"
        "    input()\n"
        "    print(json.dumps({'replies': [[['DEV_NAME', 'x' * 255]]] * size}), flush=True)\n"
        "input()"
    )
    _use(monkeypatch, code)
    async with asking(20.0) as asker:
        sizes = [len(await asker.ask("DEV_GET")) for _ in range(3)]
    assert sizes == [1, 5000, 0]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ({"errno": 2, "words": "No such file or directory"}, NotLoaded, "modprobe vdpa"),
        ({"errno": 2, "words": "No such file or directory"}, NotLoaded, "network namespace"),
        ({"errno": 19, "words": "vdpa: device not found"}, NoSuchVdpaDevice, "got 'sim0'"),
        (
            {"errno": 11, "words": "vdpa: feature negotiation not complete"},
            NetlinkRefused,
            r"refused: vdpa: feature negotiation not complete \(EAGAIN\)$",
        ),
        (
            {"errno": 1, "words": "Operation not permitted"},
            NetlinkForbidden,
            r"Operation not permitted \(EPERM\); it wants CAP_NET_ADMIN",
        ),
        (
            {"errno": 97, "words": "Address family not supported by protocol"},
            NetlinkForbidden,
            r"not supported by protocol \(EAFNOSUPPORT\); .*vhost-vdpa\.conf",
        ),
        ({"errno": 4711, "words": "Unknown error 4711"}, NetlinkRefused, r"\(4711\)"),
        ({"odd": "DEV_ID of 2 bytes"}, OddReply, "got DEV_ID of 2 bytes"),
    ],
)
async def test_a_fault_has_its_error(
    fault: dict[str, object],
    error: type[VdpaError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _use(monkeypatch, children.saying(fault))
    with pytest.raises(error, match=message):
        await _ask()


async def test_after_a_fault_the_conversation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, children.saying({"errno": 19, "words": "vdpa: device not found"}, ANSWER))
    async with asking(20.0) as asker:
        with pytest.raises(NoSuchVdpaDevice):
            await asker.ask("DEV_GET", DEV_NAME="sim0")
        assert await asker.ask("DEV_GET") == REPLIES


# --- no answer ---


async def test_no_answer_in_time_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, children.SILENT)
    ticks = asyncio.create_task(_ticks())
    start = time.monotonic()
    with pytest.raises(NetlinkStuck, match=r"within 0\.2 s, got none; .* until it is closed"):
        await _ask(seconds=0.2)
    assert time.monotonic() - start < 10
    ticks.cancel()
    assert vdpa_asker._TURNS._last is not None
    assert not vdpa_asker._TURNS._last.is_present


async def _ticks() -> None:
    """Fails the test where the loop stands still."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - before < 5


async def test_the_time_limit_does_not_count_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, "import time; time.sleep(0.5)\n" + children.saying(ANSWER))
    assert await _ask(seconds=0.4) == REPLIES


async def test_the_time_limit_is_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = children.saying(*[ANSWER] * 4).replace("    print", "    time.sleep(0.2); print")
    _use(monkeypatch, "import time\n" + slow)
    async with asking(0.6) as asker:
        for _ in range(4):
            await asker.ask("DEV_GET")


async def test_while_one_is_stuck_the_next_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the kernel keeps does not die of SIGKILL; nor does this one, unsent."""
    _use(monkeypatch, children.SILENT)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _process: None)
    with pytest.raises(NetlinkStuck, match="within"):
        await _ask(seconds=0.1)
    (stuck,) = _children()
    _use(monkeypatch, children.saying(ANSWER))
    for _ in range(3):
        start = time.monotonic()
        with pytest.raises(NetlinkStuck, match="still owes an answer"):
            await _ask()
        assert time.monotonic() - start < 1
    assert _children() == [stuck]

    _kill(stuck)
    assert await _ask() == REPLIES


async def test_those_in_the_queue_fail_once_one_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, children.SILENT)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _process: None)
    outcomes = await asyncio.gather(*[_ask(seconds=0.1) for _ in range(5)], return_exceptions=True)
    assert {type(each) for each in outcomes} == {NetlinkStuck}
    (stuck,) = _children()
    _kill(stuck)
    assert vdpa_asker._TURNS._last is not None
    assert not vdpa_asker._TURNS._last.is_present


async def test_a_process_that_does_not_start_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vdpa_asker, "_START_SECONDS", 0.1)
    _use(monkeypatch, "import time; time.sleep(1000)")
    with pytest.raises(AskerFailed, match=r"to start within 0\.1 s"):
        await _ask()


async def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vdpa_asker, "COMMAND", ("/nonexistent",))
    with pytest.raises(AskerFailed, match="cannot be started: No such file"):
        await _ask()


@pytest.mark.parametrize(
    "code",
    ["", "print('ready', flush=True)", children.saying(), children.saying(ANSWER)],
    ids=["before it is ready", "when it is ready", "unasked", "when it has answered"],
)
async def test_a_process_that_ends_early(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_on() -> None:
        async with asking(20.0) as asker:
            for _ in range(3):
                await asker.ask("DEV_GET")

    _use(monkeypatch, code)
    with pytest.raises(AskerFailed, match="it ended"):
        await ask_on()


async def test_a_process_that_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, "print('ready\\n' + 'hello ' * 100, flush=True); input()")
    with pytest.raises(AskerFailed, match=r"expected JSON .* got b'hello hello") as failed:
        await _ask()
    assert len(str(failed.value)) < 200


# --- one at a time ---


async def test_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Each makes the same folder and takes it away again: two at once could not.
    alone = f"import os; os.mkdir({str(tmp_path / 'here')!r})\n"
    gone = f"os.rmdir({str(tmp_path / 'here')!r})\n"
    code = children.saying(ANSWER).replace("    print(", f"    {gone}    print(")
    _use(monkeypatch, alone + code)
    answers = await asyncio.gather(*[_ask() for _ in range(6)])
    assert answers == [REPLIES] * 6


async def test_one_conversation_is_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another's turn comes when it is over, and what is asked then has a process of its own."""
    starts = tmp_path / "starts"
    _use(monkeypatch, f"open({str(starts)!r}, 'a').write('.')\n" + children.saying(*[ANSWER] * 3))
    async with one_conversation():
        assert await _ask() == REPLIES
        another = asyncio.create_task(_ask(), context=Context())
        assert [await _ask(), await _ask()] == [REPLIES] * 2
        assert starts.read_text() == "."
        assert not another.done()
    assert await another == REPLIES
    assert starts.read_text() == ".."
    assert await _ask() == REPLIES
    assert starts.read_text() == "..."


async def test_in_one_conversation_a_late_answer_is_nobody_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _use(monkeypatch, children.SILENT)
    async with one_conversation():
        with pytest.raises(NetlinkStuck, match=r"within 0\.05 s"):
            await _ask(0.05)
        with pytest.raises(NetlinkStuck, match="from before"):
            await _ask()


def test_every_loop_has_turns_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two() -> None:
        await asyncio.gather(_ask(), _ask())

    _use(monkeypatch, children.saying(ANSWER))
    for _ in range(2):
        asyncio.run(two())


# --- cancellation, and what the process has of ours ---


@pytest.mark.parametrize("code", ["import time; time.sleep(1000)", children.SILENT])
async def test_cancellation_ends_the_process(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, code)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await _ask()


async def test_cancelled_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, children.SILENT)
    first = asyncio.create_task(_ask())
    second = asyncio.create_task(_ask())
    await asyncio.sleep(0.1)
    assert len(_children()) == 1
    for each in (second, first):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each


async def test_the_process_gets_no_descriptor_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If it had the device that is to be closed, it would never be closed while it is stuck."""
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    code = (
        "import json, os, sys\nprint('ready', flush=True)\ninput()\n"
        "of = '/proc/self/fd/'\n"
        "found = [fd for fd in os.listdir(of) if os.path.exists(of + fd)]\n"
        "print(json.dumps({'replies': found}), flush=True)"
    )
    _use(monkeypatch, code)
    try:
        found: list[object] = list(await _ask())
    finally:
        os.close(inheritable)
    assert sorted(map(str, found)) == ["0", "1", "2"]


async def test_a_ctrl_c_is_not_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code = children.saying(ANSWER).replace(
        "print('ready'", "import os; assert os.getpgid(0) == os.getpid(); print('ready'"
    )
    _use(monkeypatch, code)
    assert await _ask() == REPLIES
