"""The guest's shell, as the other tests rely on it."""

from __future__ import annotations

import pytest

from .machine import Failed, Guest


def test_what_commands_print_comes_back_as_it_is(running: Guest) -> None:
    assert running.run("true") == ""
    assert running.run(r"printf '0 7\n\n\r\ttext'", "echo '; 1'") == "0 7\n\n\r\ttext; 1\n"
    assert len(running.run("seq 100000 120000")) == 7 * 20001


def test_the_first_command_that_fails_is_the_last(running: Guest) -> None:
    with pytest.raises(Failed, match="ended with 7: one"):
        running.run("echo one", "(exit 7)", "echo two")
    assert running.run("echo three") == "three\n"


def test_the_guest_runs_on_after_a_migration(running: Guest) -> None:
    running.run("echo kept > /tmp/kept")
    before = float(running.run("cut -d' ' -f1 /proc/uptime"))
    for _ in range(2):
        with running.stream() as stream:
            assert stream.read(4) == b"QEVM"
        assert running.qmp("query-status")["status"] == "running"
    assert running.run("cat /tmp/kept") == "kept\n"
    assert float(running.run("cut -d' ' -f1 /proc/uptime")) > before
