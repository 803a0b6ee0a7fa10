"""Command logs, where vdpactl takes a state."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import run, said
from tests.support.daemon import daemon
from vdpad.state.formats import command_log
from vdpad.virtio.commands import ACK_ERR, ACK_OK, CoalVqSet, MacAddrSet, VlanAdd
from vdpad.virtio.features import Feature

FEATURES = (Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.CTRL_MAC_ADDR)
PLAIN = {
    "version": 1,
    "features": ["CTRL_VQ", "CTRL_VLAN", "CTRL_MAC_ADDR"],
    "mac": "52:54:00:12:34:56",
    "vlans": [7],
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file with a log of what PLAIN says."""
    path = tmp_path / "vm.log"
    path.write_bytes(
        command_log.push_header(FEATURES)
        + command_log.push_command(MacAddrSet(bytes.fromhex("525400123456")).encode(), ACK_OK)
        + command_log.push_command(VlanAdd(8).encode(), ACK_ERR)
        + command_log.push_command(VlanAdd(7).encode(), ACK_OK)
    )
    return path


def test_decode_tells_what_it_holds(log: Path) -> None:
    text = said("decode", log)
    assert text.splitlines()[0] == f"{log}: a log of a guest's commands"
    assert "commands     2 acknowledged, 1 refused" in text
    assert "vlans        1 id: 7" in text


def test_it_is_converted_there_and_back(log: Path, tmp_path: Path) -> None:
    there = said("convert", log, "--to", "native")
    assert json.loads(there) == PLAIN
    again = tmp_path / "new.log"
    said("convert", "-", "--to", "command-log", "--output", again, stdin=there.encode())
    assert "same" in said("diff", log, again)
    with again.open("ab") as more:
        more.write(command_log.push_command(VlanAdd(9).encode(), ACK_OK))
    done = run("diff", log, again)
    assert (done.returncode, b"9" in done.stdout) == (1, True), done


def test_what_a_log_cannot_tell_is_told(log: Path) -> None:
    with log.open("ab") as more:
        more.write(command_log.push_command(bytes([9, 0]), ACK_OK))
    done = run("convert", log, "--to", "command-log", "--output", log)
    assert done.returncode == 0
    assert b"missing: class 9: " in done.stderr


def test_no_log_is_written_that_nobody_reads(tmp_path: Path) -> None:
    tables = {
        kind: [f"{first}:00:00:{number >> 8:02x}:{number & 255:02x}:00" for number in range(60000)]
        for kind, first in (("unicast", "02"), ("multicast", "01"))
    }
    state, output = tmp_path / "state.json", tmp_path / "new.log"
    features = ["CTRL_VQ", "CTRL_RX"]
    state.write_text(json.dumps({"version": 1, "features": features, "mac_table": tables}))
    done = run("convert", state, "--to", "command-log", "--output", output)
    assert done.returncode == 2
    assert b"does not fit the format command-log: expected a command log of at most" in done.stderr
    assert not output.exists()


def test_no_state_is_written_that_nobody_reads(tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    queues = (
        command_log.push_command(CoalVqSet(queue, 50, 32).encode(), ACK_OK)
        for queue in range(0, 40_000, 2)
    )
    features = (Feature.CTRL_VQ, Feature.VQ_NOTF_COAL)
    log.write_bytes(command_log.push_header(features) + b"".join(queues))
    done = run("convert", log, "--to", "native")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"does not fit the format native: expected JSON of at most" in done.stderr


def test_it_is_checked_and_restored(tmp_path: Path, log: Path) -> None:
    with daemon(tmp_path) as running:
        socket = ("--socket", running.socket)
        target = ("--software", "sim0")
        assert json.loads(said("--json", *socket, "check", log, *target))["compatible"] is True
        report = json.loads(said("--json", *socket, "restore", "vm-1", log, *target))
        assert report["outcome"] == "restored"
        # The same in another format is the same migration.
        again = ("restore", "vm-1", "-", *target)
        same = json.loads(said("--json", *socket, *again, stdin=json.dumps(PLAIN).encode()))
        assert same == report
