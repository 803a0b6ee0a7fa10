"""What stands on a command line and makes no sense is told before anything is done."""

import socket
from pathlib import Path

import pytest

from tests.cases import FOLDER
from tests.cli.commands import refused, run, said
from tests.support.daemon import MODULE as VDPAD
from tests.support.forker import forker_of

STATE = FOLDER / "tso_no_csum.json"


@pytest.mark.parametrize("given", ["nan", "0", "-1", "-0.5", "inf", "-inf", "1e999", "", "soon"])
def test_a_timeout_is_seconds(given: str) -> None:
    done = run(f"--timeout={given}", "info")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"--timeout: expected seconds, more than 0, got {given}" in done.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--socket", "", "info"),
        ("--host", "h", "--key-file", "", "info"),
        ("decode", ""),
        ("decode", STATE, ""),
        ("convert", "", "--to", "native"),
        ("convert", STATE, "--to", "native", "--output", ""),
        ("diff", STATE, ""),
        ("check", "", "--software", "x"),
        ("capture", "--qmp", "", "--ask-features"),
        ("keygen", ""),
    ],
    ids=lambda each: each[0],
)
def test_a_path_is_not_empty(arguments: tuple[str | Path, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"expected a path, got an empty one" in done.stderr


@pytest.mark.parametrize("option", ["--socket", "--varlink", "--config"])
def test_nor_is_vdpad_s(option: str) -> None:
    done = forker_of(VDPAD).run(option, "")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"expected a path, got an empty one" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("decode", "-", "-"),
        ("decode", "-", STATE, "-"),
        ("diff", "-", "-"),
        ("check", "-", "--target", "@-"),
        ("restore", "vm-1", "-", "--target", "@-"),
    ],
    ids=lambda each: each[0],
)
def test_standard_input_is_read_once(arguments: tuple[str | Path, ...]) -> None:
    assert "expected - once" in refused(*arguments, stdin=STATE.read_bytes())


@pytest.mark.parametrize(
    "arguments", [("decode", "-"), ("decode", STATE, "-"), ("diff", "-", STATE)]
)
def test_and_once_it_is_read(arguments: tuple[str | Path, ...]) -> None:
    assert said(*arguments, stdin=STATE.read_bytes())


@pytest.mark.parametrize(
    ("mark", "encoding", "command"),
    [
        ("\ufeff", "utf-8", "tail -c +4 FILE"),
        ("\ufeff", "utf-16-le", "iconv -f UTF-16 -t UTF-8 FILE"),
        ("\ufeff", "utf-16-be", "iconv -f UTF-16 -t UTF-8 FILE"),
    ],
)
def test_a_byte_order_mark_is_told_by_name(mark: str, encoding: str, command: str) -> None:
    marked = (mark + STATE.read_text()).encode(encoding)
    told = refused("decode", "-", stdin=marked)
    assert told.endswith(
        f"a byte order mark, that no JSON has; take it away: {command} | vdpactl decode -\n"
    )
    assert "byte order mark" in refused("convert", "-", "--to", "native", stdin=marked)


def test_a_socket_s_path_has_a_length(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    told = refused("--socket", longest, "info", code=7)
    assert told.endswith("No such file or directory; is vdpad running?\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(longest))
        too_long = longest.with_name(longest.name + "x")
        for arguments in (
            ("--socket", too_long, "info"),
            ("--socket", too_long, "watch"),
            ("capture", "--qmp", too_long, "--ask-features"),
        ):
            told = refused(*arguments, code=7)
            assert "expected a socket's path of at most 107 bytes" in told
            assert "is vdpad running" not in told
