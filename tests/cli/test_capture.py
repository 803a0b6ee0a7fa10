"""capture against a peer that says what QEMU says; on devices, see tests/qemu/test_capture.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import refused, run, said
from tests.cli.qmp_peer import GREETING, lines, peer
from tests.support.rx_filter import card

Json = dict[str, Any]

SHOWN = card("net0", unicast="none", vlan="normal", broadcast_allowed=True, vlan_table=[7])
FEATURES: Json = {
    "guest-features": {
        "transports": [],
        "dev-features": [
            f"VIRTIO_NET_F_{name}: x" for name in ("CTRL_VQ", "CTRL_VLAN", "CTRL_RX_EXTRA", "MQ")
        ],
    }
}
CAPTURED: Json = {
    "version": 1,
    "features": ["CTRL_VQ", "CTRL_VLAN", "CTRL_RX_EXTRA", "MQ"],
    "rx": {"nomulti": False, "nouni": True, "nobcast": True},
    "vlans": [7],
}
NO_COMMAND: Json = {"error": {"class": "CommandNotFound", "desc": "The command is not found"}}


def answers(*results: Json) -> list[bytes]:
    """What QEMU says: its greeting, its welcome, and these."""
    return [lines(GREETING), lines({"return": {}}), *(lines(each) for each in results)]


def version(major: int, minor: int) -> Json:
    return {"return": {"qemu": {"major": major, "minor": minor, "micro": 0}, "package": ""}}


def path_of(path: str, name: str = "virtio-net") -> Json:
    return {"name": name, "path": path}


ASK = "--ask-features"
SEVEN = version(7, 2)
BY_ID = [path_of("/machine/peripheral/net0/virtio-backend")]


def test_a_capture_is_a_state_and_what_is_missing(tmp_path: Path) -> None:
    told = answers({"return": [SHOWN]}, SEVEN, {"return": BY_ID}, {"return": FEATURES})
    with peer(tmp_path, *told) as (qmp, heard):
        done = run("capture", "--qmp", qmp, ASK)
    assert done.returncode == 0
    assert json.loads(done.stdout) == CAPTURED
    assert [line.split(":")[:4] for line in done.stderr.decode().splitlines()] == [
        ["vdpactl", " net0", " missing", " rx.alluni"],
        ["vdpactl", " net0", " missing", " queue_pairs"],
    ]
    assert heard[-1]["arguments"] == {"path": BY_ID[0]["path"]}


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ([path_of("/machine/peripheral/net0")], True),
        ([path_of("/machine/peripheral-anon/device[3]/virtio-backend")], True),
        ([path_of("/machine/peripheral/net1/virtio-backend"), *BY_ID], True),
        ([path_of("/machine/peripheral/disk", "virtio-blk"), *BY_ID], True),
        ([path_of("/machine/peripheral/net0", "virtio-blk")], False),
        ([path_of(f"/machine/peripheral-anon/device[{at}]") for at in range(2)], False),
        ([], False),
        ({}, False),
        ([{"name": "virtio-net"}], False),
    ],
)
def test_a_card_finds_its_device_or_features_are_asked_for(
    devices: Any, found: bool, tmp_path: Path
) -> None:
    told = answers({"return": [SHOWN]}, SEVEN, {"return": devices}, {"return": FEATURES})
    with peer(tmp_path, *(told if found else told[:-1])) as (qmp, _):
        if found:
            assert json.loads(run("capture", "--qmp", qmp, ASK).stdout) == CAPTURED
        else:
            assert "--features" in refused("capture", "--qmp", qmp, ASK)


@pytest.mark.parametrize(
    "last",
    [
        NO_COMMAND,
        {"return": {}},
        {"return": {"guest-features": {"transports": [], "dev-features": ["NEW: x"]}}},
    ],
)
def test_a_qemu_that_does_not_tell_features(last: Json, tmp_path: Path) -> None:
    with peer(tmp_path, *answers({"return": [SHOWN]}, SEVEN, {"return": BY_ID}, last)) as (qmp, _):
        assert "with --features" in refused("capture", "--qmp", qmp, ASK)


@pytest.mark.parametrize("other", [version(7, 1), version(10, 1), version(11, 0), version(12, 0)])
def test_a_qemu_that_may_not_survive_it_is_not_asked(other: Json, tmp_path: Path) -> None:
    with peer(tmp_path, *answers({"return": [SHOWN]}, other)) as (qmp, heard):
        said = refused("capture", "--qmp", qmp, ASK)
    assert "expected QEMU 7.2 … 10.0" in said
    assert "with --features" in said
    assert [each["execute"] for each in heard[1:]] == ["query-rx-filter", "query-version"]


@pytest.mark.parametrize("good", [version(7, 2), version(8, 2), version(9, 0), version(10, 0)])
def test_a_qemu_that_answers_is_asked(good: Json, tmp_path: Path) -> None:
    told = answers({"return": [SHOWN]}, good, {"return": BY_ID}, {"return": FEATURES})
    with peer(tmp_path, *told) as (qmp, _):
        assert run("capture", "--qmp", qmp, ASK).returncode == 0


def test_a_version_that_is_none_is_exit_code_1(tmp_path: Path) -> None:
    with peer(tmp_path, *answers({"return": [SHOWN]}, {"return": {}})) as (qmp, _):
        assert "query-version" in refused("capture", "--qmp", qmp, ASK, code=1)


def _sysfs(*bits: int, width: int) -> str:
    return "".join("1" if bit in bits else "0" for bit in range(width)) + "\n"


@pytest.mark.parametrize(
    "given",
    [
        "CTRL_VQ,CTRL_VLAN,CTRL_RX_EXTRA,MQ",
        "MQ CTRL_VQ, CTRL_VLAN bit_20",
        _sysfs(17, 19, 20, 22, width=64),
        _sysfs(17, 19, 20, 22, width=128),
    ],
)
def test_features_that_are_given_are_not_asked_for(given: str, tmp_path: Path) -> None:
    with peer(tmp_path, *answers({"return": [SHOWN]})) as (qmp, heard):
        result = json.loads(said("--json", "capture", "--qmp", qmp, "--features", given))
    assert (result["device"], result["state"]) == ("net0", CAPTURED)
    assert [each["part"] for each in result["missing"]] == ["rx.alluni", "queue_pairs"]
    assert len(heard) == 2


def test_features_come_from_one_place(tmp_path: Path) -> None:
    for arguments in ((), (ASK, "--features", "MQ")):
        done = run("capture", "--qmp", tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, b"")


def test_features_that_nobody_knows(tmp_path: Path) -> None:
    assert "--features: " in refused("capture", "--qmp", tmp_path, "--features", "MQ,none")


def test_a_capture_that_is_no_state(tmp_path: Path) -> None:
    shown = {**SHOWN, "vlan-table": [5000]}
    told = answers({"return": [shown]}, SEVEN, {"return": BY_ID}, {"return": FEATURES})
    with peer(tmp_path, *told) as (qmp, _):
        assert "vlans.0" in refused("capture", "--qmp", qmp, ASK)


def test_no_qemu_is_exit_code_7(tmp_path: Path) -> None:
    refused("capture", "--qmp", tmp_path / "none", ASK, code=7)


def test_answers_that_are_not_qemu_s_are_exit_code_1(tmp_path: Path) -> None:
    with peer(tmp_path, *answers({"return": [{"name": 1}]})) as (qmp, _):
        assert "query-rx-filter" in refused("capture", "--qmp", qmp, ASK, code=1)
