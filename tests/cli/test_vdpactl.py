"""vdpactl as a command: what it prints, and how it ends. Every exit code is provoked for real."""

import grp
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import text_of
from tests.daemon.support import (
    CHECK,
    HASH_REPORT,
    STATE,
    STATE_COMMANDS,
    Json,
    faulty,
    has_shape,
    is_error,
    is_operation,
    is_report,
    is_summary_of,
    vlans,
)
from tests.support.daemon import ROOT, daemon
from tests.support.waiting import GUARD
from tests.test_man import methods
from vdpad.cli.commands import command_line
from vdpad.cli.exit_codes import MEANINGS

DEVICES = [
    {"name": "sim0"},
    {"name": "small", "max_queue_pairs": 2, "rss_max_indirection_table_length": 2},
    faulty("err", 1, 2, name="refuses"),
    faulty("silence", 1, name="silent"),
    faulty("strange-ack", 1, name="broken"),
]


@pytest.fixture(scope="module")
def vdpad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a daemon with a device for each outcome."""
    folder = tmp_path_factory.mktemp("vdpactl")
    with daemon(folder, software=DEVICES, replay={"deadline_ms": 200}) as running:
        yield running.socket


@pytest.fixture
def state(tmp_path: Path) -> str:
    """A file with a state."""
    path = tmp_path / "state.json"
    path.write_text(json.dumps(STATE))
    return str(path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A migration of this test's own."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)[-100:]


def run(
    vdpad: Path, *arguments: str, stdin: str = "", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return text_of("--socket", str(vdpad), *options, *arguments, stdin=stdin.encode())


def said(vdpad: Path, *arguments: str, code: int = 0, stdin: str = "") -> str:
    """What it prints for people."""
    done = run(vdpad, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def printed(vdpad: Path, *arguments: str, code: int = 0, stdin: str = "") -> Any:
    """What it prints for programs."""
    done = run(vdpad, *arguments, stdin=stdin, options=("--json",))
    assert (done.returncode, done.stderr) == (code, ""), done
    return json.loads(done.stdout)


def usage_error(vdpad: Path, *arguments: str, stdin: str = "") -> str:
    """What it says of arguments that cannot be used: one line, exit code 2, nothing else."""
    done = run(vdpad, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("vdpactl: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


# --- each method, as text and as JSON ---


def test_info(vdpad: Path) -> None:
    text = said(vdpad, "info")
    result = printed(vdpad, "info")
    assert text.startswith(f"vdpad {result['version']}, API 1\n")
    assert "targets: software, vhost-vdpa, lent" in text
    for limit, value in result["limits"].items():
        assert [limit, str(value)] in [line.split() for line in text.splitlines()]


def test_check_of_what_fits(vdpad: Path, state: str) -> None:
    text = said(vdpad, "check", state, "--software", "sim0")
    assert f"takes this state: {STATE_COMMANDS} commands, at most 1 doorbell." in text
    assert ["VLAN_ADD", "4"] in [line.split() for line in text.splitlines()]
    result = printed(vdpad, "check", state, "--software", "sim0")
    assert has_shape(result, CHECK)
    assert (result["compatible"], result["commands"]) == (True, STATE_COMMANDS)


def test_check_of_what_needs_nothing_shows_no_table(vdpad: Path, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 1, "features": []}')
    text = said(vdpad, "check", str(tmp_path / "state.json"), "--software", "sim0")
    assert text == "The device takes this state, which needs no command.\n"


def test_one_is_no_plural(vdpad: Path, tmp_path: Path) -> None:
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [1]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    text = said(vdpad, "check", str(tmp_path / "state.json"), "--software", "sim0")
    assert "takes this state: 1 command, at most 1 doorbell.\n" in text
    text = said(vdpad, "restore", "one", str(tmp_path / "state.json"), "--software", "sim0")
    assert "1 of 1 command\n" in text


def test_check_of_what_does_not_fit_is_exit_code_3(vdpad: Path, state: str) -> None:
    text = said(vdpad, "check", state, "--software", "small", code=3)
    assert "cannot take this state" in text
    assert "rss.indirection_table" in text
    assert "4 queue pairs; the device takes 2" in text
    result = printed(vdpad, "check", state, "--software", "small", code=3)
    assert has_shape(result, CHECK)
    assert result["compatible"] is False


def test_a_migration_step_by_step(vdpad: Path, state: str, name: str) -> None:
    target = ("--software", "sim0")
    text = said(vdpad, "prepare", name, state, *target, "--deadline-ms", "1000")
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    assert rows["migration"].strip() == name
    assert rows["state"].strip() == "prepared"
    assert rows["target"].strip() == "software sim0"
    assert is_operation(printed(vdpad, "prepare", name, state, *target), "prepared")

    text = said(vdpad, "commit", name, "--deadline-ms", "5000")
    assert f"{STATE_COMMANDS} of {STATE_COMMANDS} commands" in text
    assert "can be used" in text
    report = printed(vdpad, "commit", name)
    assert is_report(report, "restored")

    assert printed(vdpad, "restore", name, state, *target) == report
    text = said(vdpad, "status", name)
    assert "restored" in text
    assert f"{STATE_COMMANDS} of {STATE_COMMANDS} commands" in text
    operation = printed(vdpad, "status", name)
    assert is_operation(operation, "restored", "restored")
    assert operation["report"] == report
    listed = printed(vdpad, "status")["operations"]
    (summary,) = [each for each in listed if each["migration"] == name]
    assert is_summary_of(summary, operation)
    (line,) = [each for each in said(vdpad, "status").splitlines() if name in each]
    told = [name, "restored", "restored", "software", "sim0", str(STATE_COMMANDS)]
    assert line.split()[: len(told)] == told


def test_restore_as_text(vdpad: Path, state: str, name: str) -> None:
    text = said(vdpad, "restore", name, state, "--software", "sim0")
    assert text.splitlines()[0].split() == ["outcome", "restored"]
    assert f"idle at {STATE_COMMANDS}" in text


def test_restore_tells_what_was_widened(vdpad: Path, name: str) -> None:
    table = {**STATE["mac_table"], "unicast_overflow": True}
    whole = json.dumps({**STATE, "mac_table": table})
    text = said(vdpad, "restore", name, "-", "--software", "sim0", stdin=whole)
    assert "widened: mac_table.unicast overflowed" in text


def test_cancel(vdpad: Path, state: str, name: str) -> None:
    said(vdpad, "prepare", name, state, "--software", "sim0")
    assert "cancelled" in said(vdpad, "cancel", name)
    assert is_operation(printed(vdpad, "cancel", name), "cancelled")


def test_status_of_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        nothing = {"operations": [], "total": 0, "more": False}
        assert printed(running.socket, "status") == nothing
        assert said(running.socket, "status").splitlines()[0].split()[0] == "migration"


# --- where the state and the target come from ---


def test_a_state_comes_from_standard_input(vdpad: Path, name: str) -> None:
    arguments = ("restore", name, "-", "--software", "sim0")
    assert is_report(printed(vdpad, *arguments, stdin=json.dumps(HASH_REPORT)), "restored")


def test_a_target_comes_as_json_or_from_a_file(vdpad: Path, state: str, tmp_path: Path) -> None:
    target = json.dumps({"kind": "software", "name": "sim0"})
    (tmp_path / "target.json").write_text(target)
    (tmp_path / "@odd.json").write_text(target)
    for given in (target, f"@{tmp_path / 'target.json'}", f"@{tmp_path / '@odd.json'}"):
        assert printed(vdpad, "check", state, "--target", given)["compatible"] is True


def test_a_state_and_a_target_may_not_both_come_from_nowhere(vdpad: Path, state: str) -> None:
    for arguments in (
        ("check", state),
        ("check", state, "--software", "a", "--target", "{}"),
        ("check", "--software", "sim0"),
        ("restore", state, "--software", "sim0"),
        ("commit",),
        ("cancel",),
        ("release",),
        (),
    ):
        done = run(vdpad, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: vdpactl")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", '"x"', "{'version': 1}", "[" * 100_000, "9" * 5000],
    ids=lambda text: text[:20],
)
def test_a_state_that_is_no_json_object_is_exit_code_2(vdpad: Path, text: str) -> None:
    assert "-: expected" in usage_error(vdpad, "check", "-", "--software", "sim0", stdin=text)


@pytest.mark.parametrize("text", ["", "{", "[]", "sim0", "@"])
def test_a_target_that_is_no_json_object_is_exit_code_2(vdpad: Path, state: str, text: str) -> None:
    usage_error(vdpad, "check", state, "--target", text)


def test_a_target_that_does_not_end_is_exit_code_2(vdpad: Path, state: str) -> None:
    said = usage_error(vdpad, "check", state, "--target", "@/dev/zero")
    assert "expected a target of at most 4194304 bytes" in said


def test_a_file_that_cannot_be_read_is_exit_code_2(vdpad: Path, state: str, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert none in usage_error(vdpad, "check", none, "--software", "sim0")
    assert none in usage_error(vdpad, "check", state, "--target", f"@{none}")
    assert str(tmp_path) in usage_error(vdpad, "check", str(tmp_path), "--software", "sim0")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert str(binary) in usage_error(vdpad, "check", str(binary), "--software", "sim0")


# --- options that every method has ---

COMMON = ["--json", "--socket", "S", "--timeout", "5", "--host", "h", "--key-file", "k"]
METHODS = {
    "backends": [],
    "info": [],
    "devices": [],
    "check": ["file", "--software", "sim0"],
    "prepare": ["vm", "file", "--software", "sim0"],
    "restore": ["vm", "file", "--software", "sim0", "--device", "net0"],
    "commit": ["vm"],
    "status": ["vm"],
    "watch": [],
    "cancel": ["vm"],
    "release": ["vdpa0"],
    "keygen": [],
    "selftest": ["vdpa0"],
    "provision": ["--like", "file", "--mgmtdev", "m"],
    "deprovision": ["vdpa0"],
    "decode": ["file", "other"],
    "capture": ["--qmp", "qmp", "--ask-features"],
    "load": ["file", "--backend", "net0"],
    "switch": ["--software", "loop", "--backend", "net0"],
    "convert": ["file", "--to", "native"],
    "diff": ["file", "other"],
}


def test_every_method_is_tried_here() -> None:
    assert set(METHODS) == set(methods(command_line()))


@pytest.mark.parametrize("method", METHODS)
def test_options_stand_before_the_method_as_well_as_behind_it(method: str) -> None:
    def parsed(*arguments: str) -> dict[str, Any]:
        found = vars(command_line().parse_args(arguments))
        return {name: value for name, value in found.items() if not callable(value)}

    rest = [method, *METHODS[method]]
    before = parsed(*COMMON, *rest)
    assert before == parsed(*rest, *COMMON) == parsed("-j", *COMMON[1:3], *rest, *COMMON[3:])
    assert (before["json"], before["socket"], before["timeout"]) == (True, Path("S"), 5.0)
    assert (before["host"], before["key_file"]) == ("h", Path("k"))
    plain = parsed(*rest)
    assert (plain["json"], plain["socket"], plain["timeout"]) == (False, None, 30.0)
    assert (plain["host"], plain["key_file"]) == (None, None)
    # The last one counts.
    assert parsed("--timeout", "5", *rest, "--timeout", "6")["timeout"] == 6.0


def test_json_is_asked_for_anywhere(vdpad: Path, state: str) -> None:
    whole = printed(vdpad, "check", state, "--software", "sim0")
    for arguments in (
        ("check", state, "--software", "sim0", "-j"),
        ("check", "--json", state, "--software", "sim0"),
    ):
        assert json.loads(said(vdpad, *arguments)) == whole
    elsewhere = run(Path("/nowhere"), "info", "-j", "--socket", str(vdpad))
    assert json.loads(elsewhere.stdout)["name"] == "vdpad"


# --- who may ask ---

# Root may do anything, so it becomes somebody else first; then all that is needed is imported.
AS_NOBODY = """
import os, sys
import vdpad.cli.capture, vdpad.cli.show_state, vdpad.cli.states
from vdpad.cli.vdpactl import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def shut() -> Iterator[Path]:
    """A socket in a folder that everybody may enter, and that only its owner and group may use."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o711)
        path = Path(folder, "vdpad.sock")
        listener.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, 0, grp.getgrnam("daemon").gr_gid)
        path.chmod(0o660 if os.geteuid() == 0 else 0o060)
        yield path


def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=GUARD, check=False
    )


def test_permission_denied_names_the_group_and_the_setting(shut: Path) -> None:
    done = as_nobody("--socket", shut, "info")
    group = grp.getgrgid(shut.stat().st_gid).gr_name
    assert (done.returncode, done.stdout) == (7, "")
    assert f"{shut}: Permission denied; it is for " in done.stderr
    assert f"the group {group} (mode 0" in done.stderr
    assert f"usermod -aG {group} " in done.stderr
    for setting in ("SocketGroup=", "socket_group"):
        assert setting in done.stderr
    assert len(done.stderr.splitlines()) == 1
    shut.chmod(0o600 if os.geteuid() == 0 else 0o000)
    done = as_nobody("--socket", shut, "info")
    assert "usermod" not in done.stderr
    assert group not in done.stderr
    assert "SocketMode=" in done.stderr
    shut.parent.chmod(0o700 if os.geteuid() == 0 else 0o000)
    done = as_nobody("--socket", shut, "info")
    shut.parent.chmod(0o711)
    assert "a folder on the way to it" in done.stderr
    assert "SocketGroup=" not in done.stderr


def test_qemu_s_socket_has_owners_too(shut: Path) -> None:
    done = as_nobody("capture", "--qmp", shut, "--ask-features")
    assert (done.returncode, done.stdout) == (7, "")
    assert "Permission denied; it is for " in done.stderr
    assert grp.getgrgid(shut.stat().st_gid).gr_name in done.stderr


# --- exit codes ---


def refusal(vdpad: Path, *arguments: str, code: int, kind: str, data: tuple[str, ...] = ()) -> Json:
    """The error as --json prints it, and as text: the same kind, the same code."""
    whole = printed(vdpad, *arguments, code=code)
    assert whole.keys() == {"error"}
    error: Json = whole["error"]
    assert error.keys() == {"code", "message", "data"}
    assert is_error(error, kind, *data)
    done = run(vdpad, *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(f"vdpactl: {kind}: {error['message']}\n")
    return error


def test_exit_code_1_is_for_any_other_refusal(vdpad: Path, state: str, name: str) -> None:
    refusal(vdpad, "status", "none", code=1, kind="no-such-migration")
    none = ("restore", name, state, "--software", "none")
    refusal(vdpad, *none, code=1, kind="no-such-device")
    said(vdpad, "prepare", name, state, "--software", "sim0")
    other = ("restore", name, state, "--software", "broken")
    refusal(vdpad, *other, code=1, kind="conflict", data=("digest",))


def test_exit_code_1_for_a_lend_without_descriptors(vdpad: Path, name: str, tmp_path: Path) -> None:
    memory = {"iova": 0, "size": 65536}
    ring = {"size": 4, "memory": memory, "descriptors": 0, "available": 64, "used": 128}
    whole = {**ring, "buffers": {"iova": 256, "size": 4096}}
    target = {"kind": "lent", "features": ["CTRL_VQ", "CTRL_VLAN"], "ring": whole}
    state = tmp_path / "vlans.json"
    state.write_text(json.dumps(vlans(1)))
    arguments = ("restore", name, str(state), "--target", json.dumps(target))
    refusal(vdpad, *arguments, code=1, kind="bad-lend", data=("reason",))


def test_exit_code_2_is_for_a_state_or_target_that_makes_no_sense(
    vdpad: Path, state: str, name: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**STATE, "vlans": [5000], "mac": "x"}))
    arguments = ("restore", name, str(wrong), "--software", "sim0")
    error = refusal(vdpad, *arguments, code=2, kind="invalid-params", data=("problems",))
    assert len(error["data"]["problems"]) == 2
    text = run(vdpad, *arguments).stderr
    assert "state.vlans.0" in text
    assert "state.mac" in text
    target = ("check", state, "--target", '{"kind": "none"}')
    refusal(vdpad, *target, code=2, kind="invalid-params", data=("problems",))
    deadline = ("commit", name, "--deadline-ms", "0")
    refusal(vdpad, *deadline, code=2, kind="invalid-params", data=("problems",))


def test_exit_code_2_for_a_state_that_is_too_long(vdpad: Path, name: str) -> None:
    addresses = [f"52:54:00:{at >> 8:02x}:{at & 255:02x}:00" for at in range(10_300)]
    long = json.dumps({**STATE, "mac_table": {"unicast": addresses}})
    done = run(vdpad, "restore", name, "-", "--software", "sim0", stdin=long)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vdpactl: invalid-request: ")


def test_exit_code_3_is_for_what_the_device_cannot_take(vdpad: Path, state: str, name: str) -> None:
    for method in ("prepare", "restore"):
        arguments = (method, name, state, "--software", "small")
        refusal(vdpad, *arguments, code=3, kind="incompatible", data=("problems",))
        assert "4 queue pairs; the device takes 2" in run(vdpad, *arguments).stderr


def test_exit_code_4_is_for_commands_that_the_device_refused(
    vdpad: Path, state: str, name: str
) -> None:
    arguments = ("restore", name, state, "--software", "refuses")
    error = refusal(vdpad, *arguments, code=4, kind="rejected", data=("report",))
    assert is_report(error["data"]["report"], "rejected")
    text = run(vdpad, "commit", name).stdout
    assert "2 refused:" in text
    assert ["1", "MQ_VQ_PAIRS_SET", "pairs=4"] in [line.split() for line in text.splitlines()]


def test_exit_code_5_is_for_a_device_that_was_late(vdpad: Path, state: str, name: str) -> None:
    arguments = ("restore", name, state, "--software", "silent")
    error = refusal(vdpad, *arguments, code=5, kind="timeout", data=("report",))
    assert is_report(error["data"]["report"], "incomplete")
    text = run(vdpad, "commit", name).stdout
    assert f"{STATE_COMMANDS - 1} unanswered:" in text
    assert "must be reset" in text
    assert "the device has buffers" in text


def test_exit_code_6_is_for_a_device_that_broke_the_rules(
    vdpad: Path, state: str, name: str
) -> None:
    arguments = ("restore", name, state, "--software", "broken")
    error = refusal(vdpad, *arguments, code=6, kind="device-broken", data=("report",))
    assert is_report(error["data"]["report"], "broken")
    assert "must be reset" in run(vdpad, "commit", name).stdout


def test_what_a_report_notes_is_printed(tmp_path: Path) -> None:
    with daemon(tmp_path, software=[faulty("wrong-length", 0)]) as running:
        arguments = ("restore", "vm-1", "-", "--software", "sim0")
        done = run(running.socket, *arguments, stdin=json.dumps(vlans([1, 100])))
    assert done.returncode == 0
    assert "\n\nnote: 1 of 100 commands came back with a used length of 2," in done.stdout


def test_more_lines_than_a_report_holds_are_counted(tmp_path: Path) -> None:
    refuses = faulty("err", *range(100))
    with daemon(tmp_path, software=[refuses]) as running:
        arguments = ("restore", "vm-1", "-", "--software", "sim0")
        done = run(running.socket, *arguments, stdin=json.dumps(vlans([1, 100])))
    assert done.returncode == 4
    assert "100 refused:" in done.stdout
    assert done.stdout.rstrip().endswith("… and 36 more")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_exit_code_7_is_for_no_daemon(tmp_path: Path, options: tuple[str, ...]) -> None:
    none = tmp_path / "none.sock"
    done = run(none, "info", options=options)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith(f"vdpactl: {none}: ")
    assert len(done.stderr.splitlines()) == 1


def test_exit_code_7_is_for_a_daemon_that_never_answers(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as silent:
        silent.bind(str(path))
        done = run(path, "info", options=("--timeout", "0.1"))
    assert (done.returncode, done.stdout) == (7, "")
    assert "no reply within 0.1 s" in done.stderr


@pytest.mark.parametrize("size", [200 * 1024, 1024 * 1024])
def test_exit_code_2_is_for_a_request_that_is_too_long(
    vdpad: Path, tmp_path: Path, state: str, size: int
) -> None:
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"kind": "software", "name": "x" * size}))
    done = run(vdpad, "check", state, "--target", f"@{target}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid-request: expected a request of at most 204800 bytes" in done.stderr


def test_exit_code_7_is_for_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    done = run(tmp_path / ("x" * 200), "info")
    assert (done.returncode, done.stdout) == (7, "")
    assert "None" not in done.stderr


# --- help ---


def test_help_tells_every_method_and_every_exit_code() -> None:
    done = run(Path("unused"), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for method in ("info", "check", "prepare", "commit", "restore", "status", "cancel"):
        assert f" {method} " in text
    codes = text[text.index("Exit codes: ") :]
    for code in range(8):
        assert f" {code} " in codes
    for code, meaning in MEANINGS.items():
        assert f" {code} {meaning}" in codes


@pytest.mark.parametrize("method", ["prepare", "restore"])
def test_help_of_a_method_tells_its_arguments(method: str) -> None:
    done = run(Path("unused"), method, "--help")
    assert done.returncode == 0
    for argument in ("migration", "state", "--software", "--target", "--deadline-ms"):
        assert argument in done.stdout


def test_it_tells_its_version() -> None:
    done = run(Path("unused"), "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("vdpactl ")


def test_it_runs_without_docstrings(vdpad: Path) -> None:
    command = [sys.executable, "-OO", "-m", "vdpad.cli.vdpactl", "--socket", str(vdpad), "info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
