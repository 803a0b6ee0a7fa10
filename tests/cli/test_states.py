"""decode, convert and diff without a daemon, and restores of other formats with one."""

import json
import os
import pty
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import VDPACTL, refused, run, said
from tests.daemon.support import STATE
from tests.support.daemon import ROOT, daemon
from tests.support.states import net_state
from tests.support.waiting import GUARD
from vdpad.cli import show_state, states
from vdpad.cli.failures import Usage
from vdpad.cli.state_files import choose
from vdpad.state.formats import device_parts, native
from vdpad.state.formats.recognise import Reading
from vdpad.state.found import Found, Missing
from vdpad.state.problems import Problem

Json = dict[str, Any]

# Device parts carry it whole.
PLAIN: Json = {
    "version": 1,
    "features": ["CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "CTRL_MAC_ADDR"],
    "mac": "52:54:00:12:34:56",
    "vlans": [1, [100, 200]],
}


def rows(text: str) -> dict[str, str]:
    """Labels and what stands behind them, wrapped lines put together."""
    found: dict[str, str] = {}
    label = ""
    for line in text.splitlines():
        if line.startswith("  "):
            label = line[2:15].strip() or label
            found[label] = f"{found.get(label, '')} {line[15:].strip()}".strip()
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A file with every part but a hash report."""
    path = tmp_path / "state.json"
    path.write_text(json.dumps(STATE))
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A file with device parts."""
    path = tmp_path / "state.parts"
    path.write_bytes(device_parts.encode(net_state_of(PLAIN)).data)
    return path


def net_state_of(raw: Json) -> Any:
    found = native.decode(json.dumps(raw).encode())
    assert found.state is not None, found.problems
    return found.state


# --- decode ---


def test_decode_tells_every_part(state: Path) -> None:
    text = said("decode", state)
    assert text.splitlines()[0] == f"{state}: a state in JSON"
    assert rows(text) == {
        "features": ", ".join(STATE["features"]),
        "mac": "52:54:00:12:34:56",
        "receives": "unicast: its own address and its table; multicast: all (allmulti); broadcast: "
        "none (nobcast)",
        "unicast": "2 addresses: 52:54:00:00:00:07, 52:54:00:00:00:08",
        "multicast": "1 address: 01:00:5e:00:00:01",
        "vlans": "4 ids: 1, 5, 100, 101",
        "queue pairs": "4",
        "rss": "IPv4, TCPv4",
        "rss table": "4 entries over 4 queues: 0-3",
        "rss queues": "queue 3 for what has no hash; 4 transmit queues",
        "rss key": STATE["rss"]["key"],
        "offloads": "GUEST_CSUM, GUEST_TSO4",
        "coalesce rx": "32 packets or 50 µs",
        "coalesce tx": "64 packets or 100 µs",
        "coalesce": "queue 0: 16 packets or 25 µs",
    }
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("rx", "told"),
    [
        ({"promisc": True}, "everything (promisc); not told: "),
        ({"promisc": True, "nobcast": True}, "everything (promisc); also on: nobcast; not told: "),
        ({"nouni": True, "alluni": True}, "unicast: none (nouni); multicast: its table;"),
        ({"alluni": True, "nomulti": True}, "unicast: all (alluni); multicast: none (nomulti);"),
    ],
)
def test_the_receive_filter_in_words(rx: Json, told: str) -> None:
    raw = {"version": 1, "features": ["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"], "rx": rx}
    assert rows(said("decode", "-", stdin=json.dumps(raw).encode()))["receives"].startswith(told)


def test_long_tables_are_cut_and_say_so() -> None:
    addresses = [f"52:54:00:00:00:{at:02x}" for at in range(20)]
    raw = {**PLAIN, "mac_table": {"unicast": addresses, "multicast_overflow": True}}
    raw["vlans"] = list(range(0, 200, 2))
    told = rows(said("decode", "-", stdin=json.dumps(raw).encode()))
    assert told["unicast"] == f"20 addresses: {', '.join(addresses[:8])} and 12 more"
    assert told["multicast"] == "0 addresses; the table overflowed, so this is not all"
    assert told["vlans"].startswith("100 ids: 0, 2, 4, ")
    assert told["vlans"].endswith("46 and 76 more")


def test_decode_as_json_has_everything(state: Path, parts: Path) -> None:
    first, second = json.loads(said("--json", "decode", state, parts))
    (device,) = first.pop("devices")
    assert first == {"file": str(state), "format": "native", "about": {}}
    assert device.pop("state") == STATE | {"vlans": [1, 5, 100, 101]}
    nothing: Json = {"device": "", "problems": [], "missing": [], "notes": [], "about": {}}
    assert device == nothing
    assert second["format"] == "device-parts"
    assert second["devices"][0]["state"] == PLAIN


def test_a_state_that_is_none_is_exit_code_2() -> None:
    wrong = json.dumps({**PLAIN, "vlans": [5000], "mac": "x"}).encode()
    text = said("decode", "-", code=2, stdin=wrong)
    assert "This is no valid state:" in text
    assert "vlans.0" in text
    assert "mac " in text
    (file,) = json.loads(said("--json", "decode", "-", code=2, stdin=wrong))
    assert file["devices"][0]["state"] is None
    assert [each["path"] for each in file["devices"][0]["problems"]] == ["mac", "vlans.0"]


def test_a_file_that_cannot_be_read_does_not_hide_the_others(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\x1f\x8b\x08\0")
    done = run("decode", tmp_path / "none", state, other)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{state}: ".encode())
    errors = done.stderr.decode().splitlines()
    assert [line.startswith("vdpactl: ") for line in errors] == [True, True]
    assert "none: No such file" in errors[0]
    assert "gzip -dc" in errors[1]
    files = json.loads(said("--json", "decode", tmp_path / "none", state, code=2))
    assert ["error" in each for each in files] == [True, False]


def test_a_terminal_gets_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a stream has for names."""
    bad = "\x1b[31m\nevil\u202e"
    found = Found(
        bad,
        None,
        problems=(Problem("mac", "x", "sentence"),),
        missing=(Missing("rss", bad),),
        notes=(bad,),
        about=(("link", bad),),
    )
    reading = Reading("qemu-stream", (found,), (("machine", bad),))
    monkeypatch.setattr(states, "reading_of", lambda name: reading)
    text = show_state.decoded(states.decode(Namespace(files=["file"], json=False)))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "machine ?[31m?evil?" in text
    assert "link" in text
    assert "rss: ?[31m?evil?" in text
    assert not any(line.startswith("evil") for line in text.splitlines())


def test_what_is_missing_and_noted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found(
        "0000:00:03.0",
        net_state(),
        missing=(Missing("coalescing.rx", "nobody tells it"),),
        notes=("something was put elsewhere",),
        about=(("link", "up"),),
    )
    reading = Reading("qemu-stream", (found, found), (("machine", "pc-q35-7.2"),))
    monkeypatch.setattr(states, "reading_of", lambda name: reading)
    text = show_state.decoded(states.decode(Namespace(files=["file"], json=False)))
    assert text.startswith("file: a QEMU migration stream, machine pc-q35-7.2\n\n0000:00:03.0\n  f")
    assert text.count("\n\n0000:00:03.0\n") == 2
    told = rows(text.rpartition("0000:00:03.0")[2])
    assert told["missing"] == "coalescing.rx: nobody tells it"
    assert told["note"] == "something was put elsewhere"
    assert told["link"] == "up"


def test_a_stream_without_a_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "reading_of", lambda name: Reading("qemu-stream", ()))
    text = show_state.decoded(states.decode(Namespace(files=["file"], json=False)))
    assert text.endswith("no virtio-net device in it")


# --- which device ---


def _devices(*names: str) -> list[Found]:
    return [Found(name, net_state()) for name in names]


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [(["a"], None, 0), (["a", "b"], "b", 1), ([""], None, 0), ([""], "any", 0)],
)
def test_a_device_is_chosen(names: list[str], wanted: str | None, chosen: int) -> None:
    devices = _devices(*names)
    assert choose(devices, wanted, "file") is devices[chosen]


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        ([], None, "file: expected a virtio-net device; there: none"),
        (["a", "b"], None, "file: expected --device to say which one; there: a, b"),
        (["a"], "b", "file: expected one device named b; there: a"),
        (["a", "a"], "a", "file: expected one device named a; there: a, a"),
        ([], "a", "file: expected one device named a; there: none"),
    ],
)
def test_a_device_that_is_not_there(names: list[str], wanted: str | None, said: str) -> None:
    with pytest.raises(Usage) as error:
        choose(_devices(*names), wanted, "file")
    assert str(error.value) == said


# --- convert ---


def test_a_state_there_and_back(tmp_path: Path, parts: Path) -> None:
    there = run("convert", parts, "--to", "native")
    assert (there.returncode, there.stderr) == (0, b"")
    assert json.loads(there.stdout) == PLAIN
    back = run("convert", "-", "--to", "device-parts", stdin=there.stdout)
    assert (back.returncode, back.stderr, back.stdout) == (0, b"", parts.read_bytes())


def test_native_is_made_canonical() -> None:
    written = json.dumps({**PLAIN, "vlans": [[100, 200], 1]}).encode()
    text = said("convert", "-", "--to", "native", stdin=written)
    assert text.encode() == native.encode(net_state_of(PLAIN))


def test_what_the_target_loses_is_told_and_is_no_failure(state: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run("convert", state, "--to", "device-parts", "--output", output)
    assert (done.returncode, done.stdout) == (0, b"")
    lost = [line.partition(": lost: ")[2] for line in done.stderr.decode().splitlines()]
    encoded = device_parts.encode(net_state_of(STATE))
    assert output.read_bytes() == encoded.data
    assert lost == [f"{each.part}: {each.why}" for each in encoded.missing]
    assert any(line.startswith("guest_offloads: ") for line in lost)
    told = json.loads(said("--json", "convert", state, "--to", "device-parts", "--output", output))
    assert told["bytes"] == len(encoded.data)
    assert [each["part"] for each in told["lost"]] == [each.part for each in encoded.missing]


def test_bytes_do_not_go_to_a_terminal(state: Path) -> None:
    ours, its = pty.openpty()
    command = [*VDPACTL, "convert", str(state), "--to", "device-parts"]
    done = subprocess.run(command, stdout=its, stderr=subprocess.PIPE, timeout=GUARD, check=False)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    os.close(its)
    os.close(ours)
    assert done.returncode == 2
    assert b"expected --output FILE" in done.stderr


def test_json_and_a_state_do_not_both_go_to_standard_output(state: Path) -> None:
    assert "expected --output FILE" in refused("--json", "convert", state, "--to", "native")


def test_what_cannot_be_converted(tmp_path: Path, state: Path) -> None:
    wrong = json.dumps({**PLAIN, "vlans": [5000]}).encode()
    assert "vlans.0" in refused("convert", "-", "--to", "device-parts", stdin=wrong)
    error = json.loads(
        said("--json", "convert", "-", "--to", "native", "--output", "/x", code=2, stdin=wrong)
    )["error"]
    assert error["data"]["problems"][0]["path"] == "vlans.0"
    refused("convert", tmp_path / "none", "--to", "native")
    refused("convert", state, "--to", "native", "--output", tmp_path / "none" / "x")
    done = run("convert", state, "--to", "qemu-stream")
    assert (done.returncode, done.stdout) == (2, b"")


# --- diff ---


def test_the_same_in_two_formats(parts: Path) -> None:
    state = json.dumps(PLAIN).encode()
    assert said("diff", parts, "-", stdin=state) == "The states are the same.\n"
    result = json.loads(said("--json", "diff", parts, "-", stdin=state))
    assert result["same"] is True


def test_differences_are_named_and_exit_code_1(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    rss = {**STATE["rss"], "indirection_table": [0, 1, 3, 3]}
    other.write_text(json.dumps({**STATE, "rss": rss, "vlans": [1, 5, 100, 102]}))
    text = " ".join(said("diff", state, other, code=1).split())
    assert text == (
        f"vlans: only in {state}: 1 id: 101 vlans: only in {other}: 1 id: 102 "
        "rss.indirection_table: 1 of 4 entries; "
        "the first is entry 2, 2 in the first, 3 in the second"
    )
    result = json.loads(said("--json", "diff", state, other, code=1))
    assert result["same"] is False
    (device,) = result["devices"]
    assert [(each["path"], each["kind"]) for each in device["differences"]] == [
        ("vlans", "only-first"),
        ("vlans", "only-second"),
        ("rss.indirection_table", "changed"),
    ]


def test_what_cannot_be_compared_is_exit_code_2(state: Path, tmp_path: Path) -> None:
    refused("diff", state, tmp_path / "none")
    assert "vlans.0" in refused(
        "diff", state, "-", stdin=json.dumps({**PLAIN, "vlans": [5000]}).encode()
    )


def _diff(
    monkeypatch: pytest.MonkeyPatch,
    first: Sequence[Found],
    second: Sequence[Found],
    device: str | None = None,
) -> Json:
    readings = {"a": Reading("qemu-stream", tuple(first)), "b": Reading("x", tuple(second))}
    monkeypatch.setattr(states, "reading_of", readings.__getitem__)
    return states.diff(Namespace(first="a", second="b", device=device, json=False))


def test_devices_are_compared_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = net_state(), net_state(queue_pairs=..., rss=...)
    first = [Found("x", one), Found("y", one), Found("z", one)]
    second = [Found("y", other), Found("w", one), Found("x", one)]
    result = _diff(monkeypatch, first, second)
    assert {
        each["device"]: [(d["path"], d["kind"]) for d in each["differences"]]
        for each in result["devices"]
    } == {
        "x": [],
        "y": [("queue_pairs", "only-first"), ("rss", "only-first")],
        "z": [("", "only-first")],
        "w": [("", "only-second")],
    }
    assert show_state.compared(result).splitlines() == [
        "y: queue_pairs: only in a: 4",
        "y: rss: only in a: the whole part",
        "z: only in a: the whole device",
        "w: only in b: the whole device",
    ]


def test_one_device_of_several_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    several, one = (
        [Found("x", net_state()), Found("y", net_state(mac=...))],
        [Found("", net_state())],
    )
    assert _diff(monkeypatch, several, one, "x")["same"] is True
    assert _diff(monkeypatch, several, one, "y")["same"] is False
    with pytest.raises(Usage, match="--device"):
        _diff(monkeypatch, several, one)
    with pytest.raises(Usage, match="one device named x"):
        _diff(monkeypatch, [several[0], several[0], several[1]], several)


# --- other formats, straight to a daemon ---


def test_device_parts_are_checked_and_restored(tmp_path: Path, parts: Path) -> None:
    with daemon(tmp_path) as running:
        socket = ("--socket", running.socket)
        target = ("--software", "sim0")
        result = json.loads(said("--json", *socket, "check", parts, *target))
        assert result["compatible"] is True
        report = json.loads(said("--json", *socket, "restore", "vm-1", parts, *target))
        assert report["applied"] == 1 + 102
        # The same in another format is the same migration.
        again = ("restore", "vm-1", "-", *target)
        same = json.loads(said("--json", *socket, *again, stdin=json.dumps(PLAIN).encode()))
        assert same == report


def test_what_a_file_leaves_open_is_told_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vdpad.cli import ask, state_files

    found = Found("x", net_state(), missing=(Missing("rss", "why"),), notes=("a note",))
    monkeypatch.setattr(state_files, "reading_of", lambda name: Reading("x", (found,)))
    assert ask._state("file", None) == native.plain(net_state())
    assert capsys.readouterr().err.splitlines() == [
        "vdpactl: file: missing: rss: why",
        "vdpactl: file: note: a note",
    ]
    with pytest.raises(Usage, match="one device named y"):
        ask._state("file", "y")


@pytest.mark.parametrize("command", ["info", "status", "devices"])
def test_who_asks_a_daemon_does_not_load_what_reads_states(command: str, tmp_path: Path) -> None:
    """Starting must stay cheap."""
    program = (
        "import sys; from vdpad.cli.vdpactl import main; "
        f"main(['--socket', '{tmp_path}/none', '{command}']); "
        "print([name for name in sys.modules if name.startswith(('vdpad.state', 'pydantic'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_who_stops_reading_gets_no_traceback(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps(PLAIN))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*VDPACTL, "decode", str(state)],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=GUARD,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
