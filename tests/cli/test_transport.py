"""vdpactl asking another host, and making keys."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.cli.commands import text_of
from tests.daemon.support import STATE, is_report
from tests.daemon.udp_support import OTHER_KEY, key_file, known_for_long
from tests.support.daemon import daemon
from tests.support.waiting import wait_until


def usage_error(*arguments: str) -> str:
    """What it says of arguments that cannot be used: one line, exit code 2, nothing else."""
    done = text_of(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("vdpactl: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transport")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    """Where a daemon may be asked over UDP; its keys are in the folder."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    udp = {"listen": address, "key_file": str(key_file(folder))}
    records = {"directory": known_for_long(folder / "records")}
    with daemon(folder, udp=udp, records=records) as running:
        wait_until(lambda: "udp" in running.log(), said=running.log)
        yield address


def test_a_request_that_no_sealed_datagram_takes(host: str, folder: Path) -> None:
    there = ("--host", host, "--key-file", str(folder / "keys"))
    (folder / "large.json").write_text(json.dumps(STATE))
    target = json.dumps({"kind": "software", "name": "x" * 50000})
    said = usage_error(*there, "check", str(folder / "large.json"), "--target", target)
    assert "at most 49055 bytes" in said


def test_a_state_is_restored_on_another_host(host: str, folder: Path) -> None:
    there = ("--host", host, "--key-file", str(folder / "keys"), "--json")
    (folder / "state.json").write_text(json.dumps(STATE))
    done = text_of(*there, "restore", "vm-1", str(folder / "state.json"), "--software", "sim0")
    assert (done.returncode, done.stderr) == (0, "")
    assert is_report(json.loads(done.stdout), "restored")
    done = text_of(*there, "status", "vm-2")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "no-such-migration"


def test_another_key_reaches_nobody(host: str, tmp_path: Path) -> None:
    keys = str(key_file(tmp_path, OTHER_KEY))
    done = text_of("--host", host, "--key-file", keys, "--timeout", "0.5", "info")
    assert (done.returncode, done.stdout) == (7, "")
    assert "no reply within 0.5 s" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_that_do_not_say_how_to_ask_are_told(tmp_path: Path) -> None:
    keys = key_file(tmp_path)
    assert "go together" in usage_error("--host", "h", "info")
    assert "go together" in usage_error("--key-file", str(keys), "info")
    assert "expected host:port" in usage_error("--host", "h:x", "--key-file", str(keys), "info")
    assert "none: No such" in usage_error(
        "--host", "h", "--key-file", str(tmp_path / "none"), "info"
    )
    keys.chmod(0o640)
    assert "chmod 0600" in usage_error("--host", "h", "--key-file", str(keys), "info")


def test_keygen_prints_a_key_that_is_a_line_of_a_key_file() -> None:
    keys = {text_of("keygen").stdout for _ in range(2)}
    assert len(keys) == 2
    for key in keys:
        Fernet(key.removesuffix("\n"))
    Fernet(json.loads(text_of("--json", "keygen").stdout)["key"])


def test_keygen_makes_a_file_for_its_owner_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    done = text_of("keygen", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    key = path.read_text()
    Fernet(key.strip())
    assert key.strip() not in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "nothing was changed" in usage_error("keygen", str(path))
    assert path.read_text() == key
