"""Tables, fields and sentences keep to a width; on real terminals, see test_terminal.py."""

import re
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.cli import layout
from vdpad.cli.terminal import width_of

ROWS = [
    ("mac_table.unicast.3", "not-offered", "the device does not offer CTRL_MAC_ADDR; " * 6),
    ("vlans", "too-long", "short"),
]
HEADINGS = ("path", "code", "problem")


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("COLUMNS", raising=False)
    return monkeypatch


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def column(text: str, number: int) -> str:
    """What stands in a column, all its lines put together."""
    lines = text.splitlines()
    (rule,) = [at for at, line in enumerate(lines) if set(line) == {"-", " "}]
    begins = [match.start() for match in re.finditer("-+", lines[rule])]
    ends = [*begins[1:], None]
    return "".join(line[begins[number] : ends[number]].strip() for line in lines[rule + 1 :])


def together(number: int) -> str:
    """The same of what is to be shown, without spaces."""
    return "".join(row[number] for row in ROWS).replace(" ", "")


def test_a_row_is_a_line_where_nobody_has_a_width(columns: pytest.MonkeyPatch) -> None:
    text = layout.table(ROWS, *HEADINGS)
    assert len(text.splitlines()) == 2 + len(ROWS)
    assert widest(text) > 250
    assert layout.sentence("word " * 100) == "word " * 100


@pytest.mark.parametrize("width", [200, 132, 100, 80, 60])
def test_a_table_is_wrapped_between_words(width: int, columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", str(width))
    text = layout.table(ROWS, *HEADINGS)
    assert width - 20 < widest(text) <= width
    assert text.split().count("CTRL_MAC_ADDR;") == 6
    assert [each.split()[0] for each in text.splitlines() if each[0] != " "][-2:] == [
        row[0] for row in ROWS
    ]


@pytest.mark.parametrize("width", [40, 30, 20])
def test_words_are_broken_where_nothing_else_helps(width: int, columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", str(width))
    text = layout.table(ROWS, *HEADINGS)
    assert widest(text) <= width
    for number in range(3):
        assert column(text, number).replace(" ", "") == together(number)


def test_what_fits_is_left_as_it_is(columns: pytest.MonkeyPatch) -> None:
    whole = layout.table(ROWS, *HEADINGS)
    columns.setenv("COLUMNS", str(widest(whole)))
    assert layout.table(ROWS, *HEADINGS) == whole
    columns.setenv("COLUMNS", str(widest(whole) - 1))
    assert layout.table(ROWS, *HEADINGS) != whole


def test_fields_and_sentences_keep_to_it_too(columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", "50")
    pairs = [("target", "word " * 40), ("commands", 7)]
    text = layout.fields(pairs)
    assert widest(text) <= 50
    assert text.count("word") == 40
    text = layout.sentence("word " * 40)
    assert widest(text) <= 50
    assert text.splitlines()[1].startswith("  word")


def test_no_rows(columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", "10")
    assert layout.table([], "a", "b").split()[:2] == ["a", "b"]
    assert layout.fields([]) == ""


UUID = "3f2b8c1e-77aa-4a4e-9c1d-0123456789ab"
NAMED = [
    (
        "openstack-3f2b8c1e-77aa-4a4e-9c1d-0123456789ab",
        "committing",
        "vhost-vdpa vdpa0",
        "17",
        "1h",
    ),
    ("vm-7", "failed", "software sim0", "4", "2d"),
]
OF_NAMED = ("migration", "state", "target", "commands", "age")


@pytest.mark.parametrize(
    ("width", "left_out"), [(120, []), (96, []), (90, []), (84, ["commands"]), (80, ["commands"])]
)
def test_names_stay_whole_and_columns_go_first(
    width: int, left_out: list[str], columns: pytest.MonkeyPatch
) -> None:
    columns.setenv("COLUMNS", str(width))
    text = layout.table_by_name(NAMED, *OF_NAMED, spare=("commands", "state"))
    assert widest(text) <= width
    assert text.splitlines()[0].split() == [each for each in OF_NAMED if each not in left_out]
    assert {NAMED[0][0], "committing", "vdpa0", "1h"} <= set(text.split())


def test_past_that_a_name_has_all_the_room_there_is(columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", "40")
    text = layout.table_by_name(NAMED, *OF_NAMED, spare=("commands", "state"))
    assert widest(text) <= 40
    assert text.splitlines()[0].split() == ["migration", "target", "age"]
    assert column(text, 0) == NAMED[0][0] + NAMED[1][0]


def test_by_name_what_fits_is_left_as_it_is(columns: pytest.MonkeyPatch) -> None:
    whole = layout.table(NAMED, *OF_NAMED)
    assert layout.table_by_name(NAMED, *OF_NAMED, spare=("state",)) == whole
    columns.setenv("COLUMNS", "10")
    assert layout.table_by_name([], "a", "b", spare=("b",)).split()[:2] == ["a", "b"]


@pytest.mark.parametrize("given", ["0", "", "-5", "wide", "²"])
def test_columns_that_make_no_sense_do_not_count(given: str, columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", given)
    assert width_of(sys.stdout) is None


_TEXT = st.text(
    st.characters(codec="ascii", categories=("L", "N", "P")) | st.just(" "), max_size=40
)


@given(rows=st.lists(st.tuples(_TEXT, _TEXT, _TEXT), max_size=4), width=st.integers(19, 120))
def test_whatever_is_in_it(rows: list[tuple[str, ...]], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        assert widest(layout.table(rows, *HEADINGS)) <= width


# --- whose letters they are ---

EVIL = "/tmp/\x1b[2J\x1b]0;x\x07\nrestored\u202e\x9b31m"


@pytest.mark.parametrize("width", [None, 20, 200])
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda: layout.table([(EVIL, 1)], "path", "count"),
        lambda: layout.table_by_name([(EVIL, 1)], "path", "count", spare=("count",)),
        lambda: layout.fields([("target", EVIL)]),
        lambda: layout.sentence(f"features: {EVIL}"),
    ],
    ids=["table", "table by name", "fields", "sentence"],
)
def test_a_terminal_is_told_nothing_by_what_is_told(
    laid_out: Callable[[], str], width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of another user's target, a line of somebody's selftest."""
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    text = laid_out()
    assert all(each.isprintable() or each == "\n" for each in text)
    assert width is not None or "\nrestored" not in text
