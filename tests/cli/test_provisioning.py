"""provision, deprovision and devices --management: what is read, said and refused.

On a kernel of the tests' own; on Linux's, see tests/vm.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.host.vdpa_kernel import Host
from vdpad.cli import vdpactl
from vdpad.host import sysfs, vdpa_asker
from vdpad.host.in_use import InUse
from vdpad.host.sysfs import Holder
from vdpad.provisioning import provisioner

Json = dict[str, Any]

SIMULATOR = "vdpasim_net"
CARD = "pci/0000:00:03.0"
FEATURES = ["MTU", "MAC", "STATUS", "CTRL_VQ", "CTRL_MAC_ADDR", "VERSION_1", "ACCESS_PLATFORM"]
NET7 = {
    "name": "net7",
    "mgmtdev": "pci/0000:3b:00.2",
    "driver": "vhost_vdpa",
    "node": "/dev/vhost-vdpa-7",
    "features": FEATURES,
    "config": {"mac": "52:54:00:00:00:07", "status": 1, "mtu": 9000},
}
DISK = {**NET7, "name": "disk0", "features": [], "config": None}
STATE = {
    "version": 1,
    "features": ["MAC", "CTRL_VQ", "CTRL_MAC_ADDR"],
    "mac": "52:54:00:00:00:09",
}


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Its devices have no driver and no node, but where a test says so."""
    kernel = Host.with_simulator(tmp_path / "kernel.json")
    monkeypatch.setattr(vdpa_asker, "COMMAND", kernel.command)
    monkeypatch.setattr(sysfs, "driver_of", lambda _name: None)
    monkeypatch.setattr(sysfs, "node_of", lambda _name: None)
    return kernel


@pytest.fixture
def listing(tmp_path: Path) -> str:
    return _file(tmp_path, [NET7])


def _file(tmp_path: Path, value: object, name: str = "source.json") -> str:
    path = tmp_path / name
    path.write_text(json.dumps(value))
    return str(path)


def _result(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    assert vdpactl.main(["--json", *arguments]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert vdpactl.main([*arguments]) == 0
    return capsys.readouterr().out


def _usage(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What it says of what cannot be used."""
    assert vdpactl.main([*arguments]) == 2
    return capsys.readouterr().err


# --- provision ---


def test_the_device_is_told_as_devices_tells_of_it(
    host: Host, listing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _result(capsys, "provision", "--like", listing, "--mgmtdev", SIMULATOR)
    assert result == {
        "command": "vdpa dev add name net7 mgmtdev vdpasim_net device_features 0x300830028 "
        "mac 52:54:00:00:00:07 mtu 9000",
        "device": {**NET7, "mgmtdev": SIMULATOR, "driver": None, "node": None},
    }
    assert list(host.read()["devices"]) == ["net7"]


def test_people_see_what_was_made(listing: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--like", listing, "--mgmtdev", SIMULATOR, "--name", "vdpa7")
    said = _said(capsys, "provision", *arguments)
    assert said.startswith("The device was made, and is as it was wanted.\n\ndevice ")
    assert "mac=52:54:00:00:00:07 status=1 mtu=9000" in said
    assert _said(capsys, "deprovision", "vdpa7") == "vdpa7, of vdpasim_net, was removed.\n"


def test_a_dry_run_prints_a_line_for_a_shell_and_makes_nothing(
    host: Host, listing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("provision", "--like", listing, "--mgmtdev", SIMULATOR, "--dry-run")
    line = _said(capsys, *arguments)
    assert line.startswith("vdpa dev add name net7 ")
    assert line.count("\n") == 1
    assert _result(capsys, *arguments) == {"command": line.strip(), "device": None}
    assert host.read()["devices"] == {}


def test_what_the_driver_does_not_take_is_not_in_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = {**NET7, "features": ["MAC", "VERSION_1", "ACCESS_PLATFORM"]}
    source = _file(tmp_path, [{**device, "config": {"mac": "52:54:00:00:00:0a"}}])
    result = _result(capsys, "provision", "--like", source, "--mgmtdev", CARD)
    assert "mac" not in result["command"]
    assert result["device"]["config"] == {"mac": "52:54:00:00:00:0a"}


def test_a_listing_on_standard_input(
    monkeypatch: pytest.MonkeyPatch, listing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(listing, "rb") as file:
        monkeypatch.setattr("vdpad.cli.state_files._STDIN", file.fileno())
        result = _result(capsys, "provision", "--like", "-", "--mgmtdev", SIMULATOR)
    assert result["device"]["name"] == "net7"


def test_a_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _file(tmp_path, STATE)
    result = _result(capsys, "provision", "--like", source, "--mgmtdev", SIMULATOR)
    assert result["device"]["name"] == "vdpa0"
    assert result["device"]["config"] == {"mac": STATE["mac"]}
    assert result["device"]["features"] == [
        *("MAC", "CTRL_VQ", "CTRL_MAC_ADDR", "VERSION_1", "ACCESS_PLATFORM")
    ]


def test_a_list_and_a_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list says what is made, and the state must fit it."""
    state = _file(tmp_path, STATE, "state.json")
    both = ("--like", _file(tmp_path, [NET7, DISK]), "--like", state, "--mgmtdev", SIMULATOR)
    device = _result(capsys, "provision", *both)["device"]
    assert device["config"] == NET7["config"]
    (tmp_path / "state.json").write_text(
        json.dumps({"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [1]})
    )
    error = _result(capsys, "provision", *both, "--name", "net8", code=3)["error"]
    assert [each["path"] for each in error["data"]["problems"]] == [
        *("state.features", "state.vlans")
    ]


# --- which of several ---


def test_one_of_several_is_chosen_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _file(tmp_path, [NET7, {**NET7, "name": "net8"}, DISK])
    arguments = ("provision", "--like", source, "--mgmtdev", SIMULATOR, "--dry-run")
    said = _said(capsys, *arguments, "--device", "net8")
    assert " name net8 " in said
    said = _usage(capsys, *arguments)
    assert "expected --device to say which one; network devices there: net7, net8" in said
    said = _usage(capsys, *arguments, "--device", "disk0")
    assert "expected a device named disk0" in said


def test_a_state_of_one_device_is_taken_whatever_it_is_called_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _file(tmp_path, [NET7, {**NET7, "name": "net8"}])
    state = _file(tmp_path, STATE, "state.json")
    both = ("--like", source, "--like", state, "--device", "net8")
    said = _said(capsys, "provision", *both, "--mgmtdev", SIMULATOR, "--dry-run")
    assert " name net8 " in said


def test_two_of_a_kind_are_one_too_many(
    tmp_path: Path, listing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = _file(tmp_path, STATE, "state.json")
    for twice in ((listing, listing), (state, state)):
        likes = [word for each in twice for word in ("--like", each)]
        said = _usage(capsys, "provision", *likes, "--mgmtdev", SIMULATOR)
        assert "expected one --like with a list of devices, one with a state, or both" in said


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ([{**NET7, "features": ["WIFI"]}], "0.features.0"),
        ([{"name": "net7"}], "0.features"),
        ({"version": 1, "features": ["WIFI"]}, "features.0"),
        ([], "network devices there: none"),
        ([DISK], "network devices there: none"),
        ("text", "source.json"),
    ],
)
def test_a_file_that_says_nothing_of_a_device(
    tmp_path: Path, source: Any, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, source)
    assert expected in _usage(capsys, "provision", "--like", path, "--mgmtdev", SIMULATOR)


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    said = _usage(capsys, "provision", "--like", "/no/such/file", "--mgmtdev", SIMULATOR)
    assert "/no/such/file: No such file" in said


def test_standard_input_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = _usage(capsys, "provision", "--like", "-", "--like", "-", "--mgmtdev", SIMULATOR)
    assert "expected - once" in said


# --- refusals ---


def test_what_does_not_fit_is_a_table_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _file(tmp_path, [{**NET7, "features": [*FEATURES, "MQ"]}])
    assert vdpactl.main(["provision", "--like", source, "--mgmtdev", SIMULATOR]) == 3
    said = capsys.readouterr().err
    assert "vdpactl: incompatible: vdpasim_net cannot make such a device: features:" in said
    assert "config.max_virtqueue_pairs  missing" in said


def test_kinds_and_exit_codes(
    host: Host,
    listing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    like = ("provision", "--like", listing, "--mgmtdev")

    def kind(*arguments: str, code: int) -> str:
        kind: str = _result(capsys, *arguments, code=code)["error"]["data"]["kind"]
        return kind

    assert kind("deprovision", "net7", code=9) == "no-such-device"
    assert kind(*like, "vdpasim_blk", code=9) == "no-such-device"
    _result(capsys, *like, SIMULATOR)
    assert kind(*like, SIMULATOR, code=1) == "conflict"
    monkeypatch.setattr(sysfs, "node_of", lambda _name: Path("/no/such/node"))
    assert kind("deprovision", "net7", code=1) == "not-allowed"
    monkeypatch.setattr(sysfs, "node_of", lambda _name: None)
    host.write({**host.read(), "capable": False})
    assert kind("deprovision", "net7", code=1) == "not-allowed"
    assert kind(*like, SIMULATOR, "--name", "net8", code=1) == "not-allowed"


def test_who_has_a_device_open_is_told(
    listing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, _node: Path) -> None:
        raise InUse(name, [Holder(7, "qemu")])

    _result(capsys, "provision", "--like", listing, "--mgmtdev", SIMULATOR)
    monkeypatch.setattr(sysfs, "node_of", lambda _name: Path("/dev/vhost-vdpa-0"))
    monkeypatch.setattr(provisioner, "refuse_one_in_use", refuse)
    error = _result(capsys, "deprovision", "net7", code=1)["error"]
    assert error["data"] == {"kind": "busy", "holders": [{"pid": 7, "command": "qemu"}]}
    assert "net7 is open in qemu (pid 7)" in error["message"]


def test_a_driver_s_refusal_comes_in_its_words(
    host: Host, listing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = host.read()
    # Of a driver that takes less than it says.
    held["makers"][0]["refuses"] = "vdpa_sim_net: no more memory"
    host.write(held)
    error = _result(capsys, "provision", "--like", listing, "--mgmtdev", SIMULATOR, code=1)["error"]
    assert error["data"]["kind"] == "internal"
    assert "vdpa_sim_net: no more memory (ENOSPC)" in error["message"]


# --- devices --management ---


def test_management_devices(listing: str, capsys: pytest.CaptureFixture[str]) -> None:
    _result(capsys, "provision", "--like", listing, "--mgmtdev", SIMULATOR)
    simulator, card = _result(capsys, "devices", "--management")
    assert simulator == {
        "mgmtdev": SIMULATOR,
        "classes": ["net"],
        "max_virtqueues": 3,
        "features": [
            *("MTU", "MAC", "STATUS", "CTRL_VQ", "CTRL_MAC_ADDR", "ANY_LAYOUT"),
            *("VERSION_1", "ACCESS_PLATFORM"),
        ],
        "devices": ["net7"],
    }
    assert (card["mgmtdev"], card["max_virtqueues"], card["devices"]) == (CARD, 9, [])


def test_management_devices_for_people(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "devices", "--management")
    rows = [line.split() for line in said.splitlines()]
    assert [SIMULATOR, "net", "3", "none"] in rows
    assert f"{SIMULATOR}: MTU, MAC, STATUS" in said
    host.write({**host.read(), "makers": []})
    assert "nothing that vDPA devices can be made on" in _said(capsys, "devices", "--management")


@pytest.mark.parametrize("daemon_s", [["--socket", "/no/socket"], ["--host", "host-b"]])
def test_no_daemon_is_asked(
    host: Host, listing: str, daemon_s: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["devices", "--management"],
        ["provision", "--like", listing, "--mgmtdev", SIMULATOR],
        ["deprovision", "net7"],
    ):
        assert "without a daemon" in _usage(capsys, *daemon_s, *command)
    assert host.read()["asked"] == []


def test_each_command_starts_one_process(
    listing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[vdpa_asker.Asker] = []

    class Counted(vdpa_asker.Asker):
        def __init__(self) -> None:
            starts.append(self)
            super().__init__()

    monkeypatch.setattr(vdpa_asker, "Asker", Counted)
    _result(capsys, "provision", "--like", listing, "--mgmtdev", SIMULATOR)
    assert len(starts) == 1
    _result(capsys, "devices", "--management")
    assert len(starts) == 2
    _result(capsys, "deprovision", "net7")
    assert len(starts) == 3
