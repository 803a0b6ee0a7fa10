"""Kinds of events: held against the catalog, the journal's rules, and each other."""

import contextvars
import dataclasses
import logging
import re
import shutil
import subprocess
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.availability import skip_or_fail
from tests.daemon.kinds import KINDS
from tests.service.fake_journal import NAME
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, until
from vdpad.daemon.events import daemon, operations
from vdpad.daemon.events.daemon import Stopped
from vdpad.daemon.events.requests import RequestRefused
from vdpad.service.events import announcing, kinds
from vdpad.service.events.announcing import Announcer, EventLog, log_event
from vdpad.service.events.event import CALLER, UNLOGGED, Event, fields_of

CATALOG = ROOT / "systemd" / "vdpad.catalog"

# Fields that every entry has, and that a catalog may name beside an event's own.
_EVERYWHERE = {"MESSAGE", "MESSAGE_ID", "PRIORITY"}


each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def sample(kind: type[Event]) -> Event:
    """An event of this kind, with something in every field."""
    types = typing.get_type_hints(kind)
    values: dict[Any, Any] = {str: "some", int: 7, bool: True, tuple[str, ...]: ("one", "two")}
    values[int | None] = 7
    given = {
        field.name: values.get(types[field.name], {}) for field in dataclasses.fields(as_any(kind))
    }
    event: Event = as_any(kind)(
        **given | ({"exc_info": ValueError("no")} if "exc_info" in given else {})
    )
    return event


def as_any(value: Any) -> Any:
    return value


# --- the kinds ---


def test_there_are_kinds_and_no_two_are_the_same() -> None:
    assert len(KINDS) > 15
    assert len({kind.MESSAGE_ID for kind in KINDS}) == len(KINDS)
    assert len({kind.NAME for kind in KINDS}) == len(KINDS)


@each_kind
def test_a_kind_has_what_the_journal_wants_of_it(kind: type[Event]) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", kind.MESSAGE_ID)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.NAME)
    assert kind.LEVEL in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    fields = fields_of(sample(kind))
    # structlog's own keys, and those that the listeners add.
    taken = {"event", "level", "timestamp", "exception", "message", "message_id", "uid"}
    assert not taken & fields.keys()
    for name in fields:
        assert NAME.fullmatch(f"VDPAD_{name.upper()}".encode())


@each_kind
def test_a_sentence_is_a_line_that_tells_of_its_event(kind: type[Event]) -> None:
    event = sample(kind)
    sentence = event.sentence()
    assert 5 < len(sentence) < 300
    assert sentence.isprintable()
    assert "{" not in sentence
    if "migration" in fields_of(event) and kind is not kinds.NotAllowed:
        assert sentence.startswith("some: ")


def test_what_is_empty_is_left_out_and_zero_is_not() -> None:
    event = RequestRefused(method="prepare", error="busy", reason="")
    assert fields_of(event) == {"method": "prepare", "error": "busy"}
    assert fields_of(daemon.Stopping(0)) == {"committing": 0}


def test_what_is_for_other_listeners_is_not_logged() -> None:
    unlogged = {
        field.name
        for kind in KINDS
        for field in dataclasses.fields(as_any(kind))
        if field.metadata == UNLOGGED
    }
    assert unlogged == {"acks"}
    assert "acks" not in fields_of(sample(operations.Restored))


# --- the catalog ---


@dataclasses.dataclass
class Entry:
    """One of the catalog's."""

    header: dict[str, str]
    text: str

    def names(self) -> set[str]:
        """The journal's fields that it quotes."""
        return set(re.findall(r"@([A-Z_]+)@", self.header["Subject"] + self.text))


def catalog() -> Mapping[str, Entry]:
    """By MESSAGE_ID, by https://systemd.io/CATALOG."""
    found: dict[str, Entry] = {}
    _, *parts = re.split(r"^-- ", CATALOG.read_text(), flags=re.M)
    for part in parts:
        message_id, _, rest = part.partition("\n")
        assert re.fullmatch(r"[0-9a-f]{32}", message_id), message_id
        assert message_id not in found
        header, _, text = rest.partition("\n\n")
        lines = (line.partition(": ") for line in header.splitlines())
        found[message_id] = Entry({key: value for key, _, value in lines}, text)
    return found


def test_the_catalog_explains_every_kind_and_nothing_else() -> None:
    assert catalog().keys() == {kind.MESSAGE_ID for kind in KINDS}


@each_kind
def test_an_explanation_quotes_only_what_its_event_always_has(kind: type[Event]) -> None:
    entry = catalog()[kind.MESSAGE_ID]
    assert entry.header.keys() == {"Subject", "Defined-By", "Documentation"}
    assert entry.header["Defined-By"] == "vdpad"
    assert len(entry.text) > 30
    always = {
        f"VDPAD_{field.name.upper()}"
        for field in dataclasses.fields(as_any(kind))
        if field.default == dataclasses.MISSING and field.metadata != UNLOGGED
    }
    assert entry.names() <= always | _EVERYWHERE
    if kind.LEVEL > logging.WARNING:
        assert "What to do: " in entry.text


def test_systemd_takes_the_catalog(tmp_path: Path) -> None:
    journalctl = shutil.which("journalctl")
    skip_or_fail(None if journalctl else "journalctl is not installed")
    sources = tmp_path / "usr/lib/systemd/catalog"
    sources.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, sources)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(journalctl), f"--root={tmp_path}", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GUARD,
        )
        assert done.stderr == ""
        return done.stdout

    run("--update-catalog")
    listed = {line.split()[0] for line in run("--list-catalog").splitlines()}
    assert listed == {kind.MESSAGE_ID for kind in KINDS}
    shown = run("--dump-catalog", operations.Rejected.MESSAGE_ID)
    assert "VDPAD_COMMAND names them" in shown


# --- announcing ---


def test_a_listener_that_fails_is_nobody_elses_trouble() -> None:
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise ValueError

    announce = Announcer(heard.append, fail, heard.append)
    announce(Stopped())
    assert heard == [Stopped(), Stopped()]
    assert announce.failures == 1


async def test_what_waits_is_told_soon_in_its_order_and_as_of_its_caller() -> None:
    heard: list[tuple[Event, int | None]] = []
    announce = Announcer(lambda event: heard.append((event, CALLER.get())))
    events = [daemon.Stopping(number) for number in range(4)]
    for number, event in enumerate(events[:3]):
        context = contextvars.copy_context()
        context.run(CALLER.set, number)
        context.run(announce.later, event)
    assert heard == []
    announce(events[3])
    assert heard == [(event, number) for number, event in enumerate(events[:3])] + [
        (events[3], None)
    ]
    announce.later(events[0])
    announce.later(lambda: events[1])
    await until(lambda: len(heard) == 6)
    assert heard[4:] == [(events[0], None), (events[1], None)]


async def test_what_makes_an_event_that_waits_troubles_nobody() -> None:
    def fail() -> Event:
        raise ZeroDivisionError

    heard: list[Event] = []
    announce = Announcer(heard.append)
    announce.later(fail)
    announce(Stopped())
    assert (heard, announce.failures) == ([Stopped()], 1)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches structlog."""
    found: list[dict[str, Any]] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        found.append(event)
        raise structlog.DropEvent

    wrapper = structlog.make_filtering_bound_logger(logging.INFO)
    log = structlog.wrap_logger(None, processors=[keep], wrapper_class=wrapper)
    monkeypatch.setattr(announcing, "log", log)
    return found


def test_an_event_is_logged_with_its_kind_its_sentence_and_its_caller(
    logged: list[dict[str, Any]],
) -> None:
    before = CALLER.set(1000)
    try:
        log_event(daemon.Stopping(2))
    finally:
        CALLER.reset(before)
    log_event(Stopped())
    stopping, stopped = logged
    assert stopping == {
        "event": "stopping",
        "message": daemon.Stopping(2).sentence(),
        "message_id": daemon.Stopping.MESSAGE_ID,
        "committing": 2,
        "uid": 1000,
    }
    assert "uid" not in stopped


def _clock(times: list[float]) -> Callable[[], float]:
    return lambda: times[0]


def test_what_clients_bring_about_at_will_does_not_fill_the_journal(
    logged: list[dict[str, Any]],
) -> None:
    times = [0.0]
    heard = EventLog(_clock(times))
    refused = RequestRefused(method="prepare", error="busy", reason="it is")
    for _ in range(1000):
        heard(refused)
    assert len(logged) == 100
    heard(Stopped())
    assert logged[-1]["event"] == "stopped"
    assert len(logged) == 101
    times[0] = 10.0
    heard(refused)
    heard(refused)
    assert [each.get("suppressed") for each in logged[101:]] == [900, None]


def test_nor_does_one_user_hide_by_them_what_another_does(logged: list[dict[str, Any]]) -> None:
    times = [0.0]
    heard = EventLog(_clock(times))
    refused = RequestRefused(method="prepare", error="busy", reason="it is")
    for uid, count in ((1000, 1000), (1001, 1)):
        before = CALLER.set(uid)
        for _ in range(count):
            heard(refused)
        CALLER.reset(before)
    heard(kinds.ConnectionCut(1, 1000, "again"))
    heard(kinds.ConnectionCut(2, 1002, "another's"))
    assert [each["uid"] for each in logged[:101]] == [1000] * 100 + [1001]
    assert [each["reason"] for each in logged[101:]] == ["another's"]
