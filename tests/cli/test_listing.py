"""`vdpactl status` of several, and `vdpactl watch`."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import VDPACTL, refused, run, said
from tests.daemon.support import faulty, is_summary, vlans
from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.waiting import GUARD
from vdpad.cli import listing, show, vdpactl

FAILED = [f"bad-{number}" for number in (4, 3, 2, 1, 0)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that remembers ten restores, of which every other one failed."""
    folder = tmp_path_factory.mktemp("listing")
    devices = [{"name": "sim0"}, faulty("err", 0, name="bad")]
    with daemon(folder, varlink=folder / "io.vdpad", software=devices) as each:
        (folder / "state.json").write_text(json.dumps(vlans(1)))
        for number in range(5):
            for device in ("sim0", "bad"):
                name = f"{device}-{number}"
                state = folder / "state.json"
                run("--socket", each.socket, "restore", name, state, "--software", device)
        yield each


@pytest.fixture(params=["vdpad.sock", "io.vdpad"], ids=["datagrams", "connection"])
def path(running: Daemon, request: pytest.FixtureRequest) -> Path:
    return running.socket.with_name(request.param)


def listed(path: Path, *options: str) -> tuple[list[str], int, bool]:
    result: Any = json.loads(said("--json", "--socket", path, "status", *options))
    assert all(map(is_summary, result["operations"]))
    names = [each["migration"] for each in result["operations"]]
    return names, result["total"], result["more"]


# --- status ---


def test_all_are_listed_newest_first(path: Path) -> None:
    names, total, more = listed(path)
    assert names[:3] == ["bad-4", "sim0-4", "bad-3"]
    assert (len(names), total, more) == (10, 10, False)


def test_those_that_failed(path: Path) -> None:
    assert listed(path, "--failed") == (FAILED, 5, False)


def test_no_more_than_the_limit_and_whether_there_are_more(path: Path) -> None:
    assert listed(path, "--failed", "--limit", "3") == (FAILED[:3], 5, True)
    assert listed(path, "--failed", "--limit", "5") == (FAILED, 5, False)


def test_the_page_s_length_is_nobody_s_affair(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "_PAGE", 2)
    assert vdpactl.main(["--json", "--socket", str(path), "status"]) == 0
    assert len(json.loads(capsys.readouterr().out)["operations"]) == 10


def test_those_that_began_since(path: Path) -> None:
    whole = json.loads(said("--json", "--socket", path, "status"))["operations"]
    third = whole[2]["began"]
    assert listed(path, "--since", third)[0] == [each["migration"] for each in whole[:3]]
    assert listed(path, "--since", third, "--limit", "2") == (["bad-4", "sim0-4"], 10, True)
    assert listed(path, "--since", third, "--limit", "3")[2] is False
    assert len(listed(path, "--since", "1d")[0]) == 10
    assert len(listed(path, "--since", "2020-01-01")[0]) == 10
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert listed(path, "--since", tomorrow.isoformat())[0] == []


@pytest.mark.parametrize(
    "options",
    [
        ["--limit", "0"],
        ["--limit", "x"],
        ["--since", "yesterday"],
        ["--since", "5w"],
        ["--since", ""],
    ],
)
def test_options_that_make_no_sense(path: Path, options: list[str]) -> None:
    done = run("--socket", path, "status", *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"expected" in done.stderr


@pytest.mark.parametrize("options", [["--failed"], ["--limit", "3"], ["--since", "1d"]])
def test_one_migration_is_no_list(path: Path, options: list[str]) -> None:
    assert "a migration is one" in refused("--socket", path, "status", "bad-1", *options)


def test_people_are_shown_outcome_time_and_age_and_that_there_are_more(path: Path) -> None:
    text = said("--socket", path, "status", "--failed", "--limit", "2")
    headings, _, first, _, _, last = text.splitlines()
    assert headings.split() == [
        *("migration", "state", "outcome", "target", "commands", "began", "age"),
    ]
    cells = first.split()
    assert cells[:6] == ["bad-4", "failed", "rejected", "software", "bad", "1"]
    datetime.strptime(" ".join(cells[6:8]), "%Y-%m-%d %H:%M").astimezone()
    assert cells[8][:-1].isdecimal()
    assert last.startswith("There are more: 2 of 5 are shown. --limit, --failed and --since")
    assert "There are more" not in said("--socket", path, "status", "--failed")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")],
)
def test_an_age_is_told_roughly(seconds: int, shown: str) -> None:
    began = datetime.now(UTC) - timedelta(seconds=seconds)
    assert show._age(began.isoformat()) == shown


def test_an_age_from_a_clock_ahead_is_none() -> None:
    assert show._age((datetime.now(UTC) + timedelta(hours=1)).isoformat()) == "0s"
    assert (show._age(None), show._time(None)) == ("", "")


# --- watch ---


def watching(path: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*VDPACTL, "--socket", str(path), "watch", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(watcher: "subprocess.Popen[str]") -> str:
    assert watcher.stdout is not None
    return watcher.stdout.readline()


def test_each_change_is_a_line(tmp_path: Path) -> None:
    with daemon(tmp_path, varlink=tmp_path / "io.vdpad") as each:
        state = tmp_path / "state.json"
        state.write_text(json.dumps(vlans(1)))
        said("--socket", each.socket, "prepare", "vm-1", state, "--software", "sim0")
        with watching(tmp_path / "io.vdpad") as watcher:
            assert line_of(watcher).split()[2:] == [
                *("vm-1", "prepared", "software", "sim0", "1", "command"),
            ]
            said("--socket", each.socket, "commit", "vm-1")
            assert line_of(watcher).split()[2:4] == ["vm-1", "committing"]
            assert line_of(watcher).split()[2:5] == ["vm-1", "restored", "restored"]
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(GUARD) == 0
            assert watcher.stderr is not None
            assert watcher.stderr.read() == ""


def test_by_datagrams_nothing_is_watched(running: Daemon) -> None:
    assert "takes datagrams" in refused("--socket", running.socket, "watch")


def test_those_that_fail_as_json(tmp_path: Path) -> None:
    path, state = tmp_path / "io.vdpad", tmp_path / "state.json"
    state.write_text(json.dumps(vlans(1)))
    devices = [{"name": "sim0"}, faulty("err", 0, name="bad")]
    with daemon(tmp_path, varlink=path, software=devices):
        run("--socket", path, "restore", "vm-1", state, "--software", "bad")
        with watching(path, "--failed", "--json") as watcher:
            assert json.loads(line_of(watcher))["migration"] == "vm-1"
            run("--socket", path, "restore", "vm-2", state, "--software", "sim0")
            run("--socket", path, "restore", "vm-3", state, "--software", "bad")
            summary = json.loads(line_of(watcher))
            assert is_summary(summary)
            assert summary["migration"] == "vm-3"
            watcher.send_signal(signal.SIGINT)


def test_who_has_seen_enough_ends_it(tmp_path: Path) -> None:
    """At the next line, which finds nobody."""
    path, state = tmp_path / "io.vdpad", tmp_path / "state.json"
    state.write_text(json.dumps(vlans(1)))
    with daemon(tmp_path, varlink=path):
        run("--socket", path, "prepare", "vm-1", state, "--software", "sim0")
        watcher = watching(path)
        assert "vm-1" in line_of(watcher)
        assert watcher.stdout is not None
        watcher.stdout.close()
        run("--socket", path, "cancel", "vm-1")
        assert watcher.wait(GUARD) == 0
        assert watcher.stderr is not None
        assert watcher.stderr.read() == ""
        watcher.stderr.close()


def test_the_end_of_the_daemon_ends_it(tmp_path: Path) -> None:
    with daemon(tmp_path, varlink=tmp_path / "io.vdpad") as each:
        state = tmp_path / "state.json"
        state.write_text(json.dumps(vlans(1)))
        said("--socket", each.socket, "prepare", "vm-1", state, "--software", "sim0")
        with watching(tmp_path / "io.vdpad") as watcher:
            line_of(watcher)
            each.stop()
            assert "cancelled" in line_of(watcher)
            assert watcher.wait() == 1
            assert watcher.stderr is not None
            assert "the daemon is stopping" in watcher.stderr.read()


def test_nobody_is_watched_from_another_host() -> None:
    keys = ("--host", "localhost", "--key-file", os.devnull)
    done = run(*keys, "watch")
    assert done.returncode == 2
