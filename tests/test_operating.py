"""The operator's page says what the code does: its events, fields, metrics, figures, examples."""

import dataclasses
import grp
import pwd
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.daemon.kinds import KINDS
from tests.support.metrics import labels_by_name, of_a_daemon
from tests.support.pages import quoted, table
from tests.test_man import PAGES
from vdpad.daemon import address_space
from vdpad.daemon.configuration import load_settings
from vdpad.daemon.events.operations import ReplayEnded
from vdpad.daemon.operations import phases
from vdpad.daemon.settings import MAX_DEADLINE_MS, Settings
from vdpad.restore.replay import Outcome
from vdpad.restore.report import MAX_LINES
from vdpad.service.endpoints import endpoint as endpoints
from vdpad.service.endpoints import stream as stream_endpoint
from vdpad.service.events import announcing
from vdpad.service.events.event import UNLOGGED
from vdpad.service.refusal import Kind
from vdpad.virtio.commands import COMMANDS
from vdpad.wire import admitted, datagrams, keys, sealing, streams

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operating.md").read_text()

# What a replay never sends: it only adds, and asks nothing back.
_NEVER_SENT = {"VLAN_DEL", "ANNOUNCE_ACK", "NOTF_COAL_VQ_GET"}


def rows(*headings: str) -> list[list[str]]:
    """The cells of the page's one table with these columns."""
    return table(PAGE, *headings)


# --- tables ---


def test_every_event_is_told_by_its_name_level_and_message_id() -> None:
    told = [
        (quoted(name)[0], level, message_id)
        for name, level, message_id, _ in rows("event", "level", "MESSAGE_ID", "what it means")
    ]
    levels = {20: "i", 30: "w", 40: "e", 50: "c"}
    kinds = {(kind.NAME, levels[kind.LEVEL], kind.MESSAGE_ID) for kind in KINDS}
    assert set(told) == kinds
    assert len(told) == len(kinds)


@pytest.mark.parametrize("page", ["operating.md", *PAGES])
def test_no_field_is_told_that_no_entry_has(page: str) -> None:
    fields = {
        f"VDPAD_{field.name.upper()}"
        for kind in KINDS
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.metadata != UNLOGGED
    }
    everywhere = {"VDPAD_EVENT", "VDPAD_UID", "VDPAD_SUPPRESSED", "VDPAD_EXCEPTION"}
    text = PAGE if page == "operating.md" else PAGES[page]
    assert set(re.findall(r"VDPAD_[A-Z_]+[A-Z]", text)) <= fields | everywhere


def test_the_fields_of_a_replay_s_end_are_told() -> None:
    told = {name for first, _ in rows("field", "what") for name in quoted(first)}
    logged = {
        f"VDPAD_{field.name.upper()}"
        for field in dataclasses.fields(ReplayEnded)
        if field.metadata != UNLOGGED
    }
    assert logged - {"VDPAD_FAULT"} <= told  # that is one of `broken` only


def test_every_metric_is_told_with_its_labels() -> None:
    told = {
        quoted(name)[0]: set(filter(None, labels.split(", ")))
        for name, labels, _ in rows("metric", "labels", "what")
    }
    assert told == labels_by_name(of_a_daemon())


def test_every_reason_for_which_a_datagram_is_refused_is_told() -> None:
    table = rows("reason", "what came", "what to do, if it is a source of yours")
    assert {name for first, *_ in table for name in quoted(first)} == set(sealing.Reason)


def test_every_command_that_may_be_refused_is_told() -> None:
    table = rows("command", "what the device has not got", "the guest would")
    names = [name for first, *_ in table for name in quoted(first)]
    assert sorted(names) == sorted({each.NAME for each in COMMANDS.values()} - _NEVER_SENT)


def test_every_failure_has_something_to_do() -> None:
    table = rows("outcome", "the device", "what to do")
    told = {name for first, *_ in table for name in quoted(first)}
    assert told == {*Outcome, "failed", "refused"} - {Outcome.RESTORED}


@pytest.mark.parametrize(
    "kind",
    # Those of a client that does not speak the protocol; its maker reads docs/api.md.
    sorted(set(Kind) - {Kind.PARSE_ERROR, Kind.INVALID_PARAMS, Kind.METHOD_NOT_FOUND}),
)
def test_every_error_that_an_operator_meets_is_told(kind: Kind) -> None:
    assert f"`{kind.value}`" in PAGE


# --- figures ---


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (sealing.MAX_TEXT, "Request and reply have at most {} bytes"),
        (admitted.MAX_ADMITTED, "more than {} were let in within the TTL"),
        (sealing.MAX_SKEW, "clocks may differ by {} s"),
        (Settings().udp.ttl_s, "until `udp.ttl_s` ({} s)"),
        (keys.MAX_KEYS, "one key a line, at most {};"),
        (announcing._MAX_AT_WILL, "bring about at will, {} in 10 s are logged"),
        (MAX_LINES, "at most {} of each"),
        (Settings().limits.operations_at_once, "`limits.operations_at_once` {}:"),
        (Settings().limits.operations_kept, "`limits.operations_kept` {}:"),
        (Settings().replay.deadline_ms, "`replay.deadline_ms` {}, at most"),
        (MAX_DEADLINE_MS, "at most {}: a whole replay"),
        (endpoints._QUEUED_DATAGRAMS, "{} datagrams that wait to be looked at"),
        (endpoints._ANSWERED_AT_ONCE, "{} being answered"),
        (phases._MAX_WAITING, "{} requests that wait for one commit"),
        (datagrams.MAX_DATAGRAM // 1024, "{} KiB a request"),
        (streams.MAX_MESSAGE >> 20, "{} MiB a request over a connection"),
        (int(streams.PATIENCE), "{} s for a message to come"),
        (stream_endpoint._MAX_PER_USER, "{} connections a user"),
        (stream_endpoint._MOST, "connections a user, {} in all"),
        (datagrams.MAX_DESCRIPTORS, "{} descriptors a request"),
        (address_space._OWN_MIB, "What vdpad may need is {} MiB"),
        (address_space._PER_OPERATION_MIB, "and {} MiB for each of `limits.operations_at_once`"),
        (address_space.needed_mib(Settings().limits), "`limits.operations_at_once`: {} MiB"),
    ],
)
def test_figures_are_the_code_s(figure: int, text: str) -> None:
    assert text.format(figure) in PAGE


def test_what_a_reload_takes_is_told_everywhere() -> None:
    texts = [PAGE, PAGES["vdpad.8.rst"], (ROOT / "config" / "vdpad.toml").read_text()]
    changed = Settings.model_validate(
        {
            "allowed_uids": [1],
            "access": {"commit": {}},
            "limits": {"operations_kept": 7},
            "replay": {"poll_us": 7},
            "records": {"directory": "/there"},
            "metrics": {"interval_s": 7},
            "udp": {"ttl_s": 7},
            "software": [{"name": "novel"}],
        }
    )
    _, taken, rest = Settings().taking(changed)
    assert taken == {"allowed_uids", "access", "limits", "replay"}
    assert rest == {"records", "metrics", "udp", "software"}
    for text in texts:
        assert all(name in text for name in taken)
    ((takes, restarts),) = rows(
        "taken by a reload, from the next request on", "needs `systemctl restart vdpad.service`"
    )
    assert all(name in takes for name in taken)
    assert all(name in restarts for name in rest)


# --- examples ---


@pytest.fixture
def known_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is that of a user and of a group."""
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=1000))
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=1000))


def _toml_examples() -> list[str]:
    """Indented blocks that begin with a table."""
    found = []
    for text in (PAGE, PAGES["vdpad.toml.5.rst"]):
        for block in re.split(r"\n\n+", text):
            lines = block.splitlines()
            if lines and all(line.startswith("    ") for line in lines):
                plain = "\n".join(line.removeprefix("    ") for line in lines)
                if plain.startswith("["):
                    found.append(plain)
    return found


def test_there_are_examples() -> None:
    assert len(_toml_examples()) == 7


@pytest.mark.usefixtures("known_users")
@pytest.mark.parametrize("example", _toml_examples())
def test_an_example_can_be_used(tmp_path: Path, example: str) -> None:
    path = tmp_path / "vdpad.toml"
    path.write_text(example)
    assert load_settings(path) != load_settings(None)


@pytest.mark.usefixtures("known_users")
def test_the_settings_that_are_commented_out_can_be_used(tmp_path: Path) -> None:
    text = (ROOT / "config" / "vdpad.toml").read_text()
    everything = re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.M)
    path = tmp_path / "vdpad.toml"
    path.write_text(everything)
    settings = load_settings(path)
    assert settings.udp.listen
    assert settings.access["commit"].groups
    # Nothing that can be set is missing.
    for each, model in _tables(tomllib.loads(everything), settings):
        assert each.keys() == type(model).model_fields.keys()


def _tables(table: dict[str, Any], model: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each table of a configuration, with the settings that came of it."""
    yield table, model
    for name in table.keys() & {"limits", "replay", "records", "udp", "metrics", "misbehave"}:
        yield from _tables(table[name], getattr(model, name))
    if "software" in table:
        yield from _tables(table["software"][0], model.software[0])
    if "access" in table:
        yield from _tables(table["access"]["commit"], model.access["commit"])
