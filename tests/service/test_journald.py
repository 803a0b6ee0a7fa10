"""The journal's sink, against a journal that knows the protocol from its page only."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.service.fake_journal import FakeJournal, parsed
from tests.support.descriptors import no_descriptor_left
from vdpad.service.log import journal_processors
from vdpad.service.systemd.journald import Journald, entry, is_the_journal

LOST = "a0d1036bed0b4af99046161f5b4fd96e"


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[FakeJournal]:
    with FakeJournal(tmp_path / "journal") as each:
        yield each


@pytest.fixture
def sink(socket: FakeJournal) -> Iterator[Journald]:
    each = Journald(str(socket.path))
    yield each
    each.close()


@pytest.fixture
def log(sink: Journald) -> Any:
    """structlog as it is configured for the journal."""
    return structlog.wrap_logger(
        sink,
        processors=journal_processors(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )


def message(text: str) -> bytes:
    return entry([("MESSAGE", text)])


# --- the protocol ---


@given(st.lists(st.tuples(st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True), st.text())))
def test_fields_come_out_as_they_went_in_whatever_they_hold(fields: list[tuple[str, str]]) -> None:
    expected = sorted((name, value.encode()) for name, value in fields)
    assert sorted(parsed(entry(fields))) == expected


@pytest.mark.parametrize("value", ["", "\n", "a\nMESSAGE=forged\n", "=", "\x00", "é\n\ud800"])
def test_a_value_adds_no_field(value: str) -> None:
    found = parsed(entry([("MESSAGE", "said"), ("VDPAD_REASON", value), ("PRIORITY", "6")]))
    told = dict(found)
    assert sorted(told) == ["MESSAGE", "PRIORITY", "VDPAD_REASON"]
    assert len(found) == 3
    assert told["VDPAD_REASON"] == value.encode(errors="backslashreplace")


def test_an_entry_is_the_protocols_bytes() -> None:
    """By hand from its page: a text and one of two lines."""
    assert entry([("A", "b"), ("C", "d\ne")]) == b"A=b\nC\n\x03\x00\x00\x00\x00\x00\x00\x00d\ne\n"


# --- the sink ---


def test_an_entry_is_a_datagram(socket: FakeJournal, sink: Journald) -> None:
    sink.msg(message("one"))
    sink.msg(message("two"))
    assert socket.entries() == [{"MESSAGE": ["one"]}, {"MESSAGE": ["two"]}]
    assert (socket.memfds, sink.dropped) == (0, 0)


def test_an_entry_that_no_datagram_takes_comes_in_a_sealed_memfd(
    socket: FakeJournal, sink: Journald
) -> None:
    text = "x" * (16 << 20)
    with no_descriptor_left():
        sink.msg(message(text))
        assert socket.entries() == [{"MESSAGE": [text]}]
    assert socket.memfds == 1


def test_a_full_journal_holds_nothing_up_and_hears_of_what_it_missed(
    socket: FakeJournal, sink: Journald
) -> None:
    sent = 0
    began = time.monotonic()
    while not sink.dropped:
        sink.msg(message(f"{sent}"))
        sent += 1
    for _ in range(9):
        sink.msg(message("missed"))
    assert time.monotonic() - began < 5
    assert sink.dropped == 10
    taken = socket.entries()
    assert len(taken) == sent - 1
    sink.msg(message("again"))
    told, again = socket.entries()
    assert told["MESSAGE_ID"] == [LOST]
    assert told["VDPAD_LOST"] == ["10"]
    assert told["PRIORITY"] == ["4"]
    assert "10 log entries" in told["MESSAGE"][0]
    assert again == {"MESSAGE": ["again"]}
    sink.msg(message("no more is told"))
    assert len(socket.entries()) == 1
    assert sink.dropped == 10


def test_a_full_journal_takes_no_memfd_either(socket: FakeJournal, sink: Journald) -> None:
    while not sink.dropped:
        sink.msg(message("x"))
    sink._lost = 0  # else it would not even try
    with no_descriptor_left():
        sink.msg(message("x" * (16 << 20)))
    assert sink.dropped == 2


def test_a_journal_that_goes_and_comes_again_is_found(socket: FakeJournal, sink: Journald) -> None:
    sink.msg(message("before"))
    socket.path.unlink()
    sink.msg(message("missed"))
    with FakeJournal(socket.path) as later:
        sink.msg(message("after"))
        told, after = later.entries()
    assert told["VDPAD_LOST"] == ["1"]
    assert after == {"MESSAGE": ["after"]}
    sink.msg(message("nobody listens"))
    assert sink.dropped == 2


def test_a_journal_that_is_away_is_told_from_one_that_is_there(
    socket: FakeJournal, sink: Journald
) -> None:
    assert sink.is_present()
    assert socket.entries() == []
    while not sink.dropped:
        sink.msg(message("x"))
    assert sink.is_present()
    socket.path.unlink()
    assert not sink.is_present()


# --- $JOURNAL_STREAM ---


def test_a_descriptor_is_the_journal_by_its_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file, (tmp_path / "b").open("w") as other:
        found = os.fstat(file.fileno())
        there = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_the_journal(file.fileno(), there)
        assert not is_the_journal(other.fileno(), there)
        assert not is_the_journal(file.fileno(), {})
        assert not is_the_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}"})
    assert not is_the_journal(10**6, there)


# --- through structlog ---


def test_a_line_without_a_kind_is_an_entry_too(socket: FakeJournal, log: Any) -> None:
    log.warning("odd", migration="vm-7", number=3, yes=True, nothing=None, listed=("a", "b"))
    (found,) = socket.entries()
    assert found == {
        "MESSAGE": ["odd"],
        "PRIORITY": ["4"],
        "SYSLOG_IDENTIFIER": ["vdpad"],
        "VDPAD_EVENT": ["odd"],
        "VDPAD_MIGRATION": ["vm-7"],
        "VDPAD_NUMBER": ["3"],
        "VDPAD_YES": ["true"],
        "VDPAD_LISTED": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_levels_are_syslogs(socket: FakeJournal, log: Any, level: str, priority: str) -> None:
    getattr(log, level)("said")
    assert socket.entries()[0]["PRIORITY"] == [priority]


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31mred", "\x00", "\u2028", "\u202eback", "\ud800", "\r"]
)
def test_no_text_of_others_has_control_characters_in_the_journal(
    socket: FakeJournal, log: Any, text: str
) -> None:
    log.warning(text, reason=text, problem=[text, "fine"])
    (found,) = socket.entries()
    for name in ("MESSAGE", "VDPAD_REASON", "VDPAD_PROBLEM"):
        assert all(value.isprintable() for value in found[name]), found
    assert found["VDPAD_PROBLEM"][1] == "fine"


def test_texts_are_bounded_and_a_traceback_keeps_its_end(socket: FakeJournal, log: Any) -> None:
    try:
        raise ValueError("x" * 10**6 + "\n\x1b[31mthe end")
    except ValueError:
        log.exception("failed", reason="y" * 10**6)
    (found,) = socket.entries()
    (traceback,) = found["VDPAD_EXCEPTION"]
    assert len(found["VDPAD_REASON"][0]) == 4096
    assert len(traceback) < 70_000
    assert traceback.endswith("\n\\x1b[31mthe end")
