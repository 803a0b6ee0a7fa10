"""The configuration: what is taken, and what is told of what is not."""

import asyncio
from pathlib import Path

import pytest

from tests.daemon.support import Caller
from tests.support.daemon import daemon, refused
from vdpad.daemon.configuration import BadSettings, load_settings


def written(folder: Path, config: str | bytes) -> Path:
    path = folder / "vdpad.toml"
    path.write_bytes(config.encode() if isinstance(config, str) else config)
    return path


def told(folder: Path, config: str | bytes) -> str:
    """What is said of this configuration: one line, and of which file."""
    path = written(folder, config)
    with pytest.raises(BadSettings) as caught:
        load_settings(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "config", ["unknown = 1", "socket_mode = 660", "socket", '[[software]]\nname = "a b"']
)
def test_a_configuration_that_cannot_be_used_ends_vdpad_with_a_line(
    tmp_path: Path, config: str
) -> None:
    path = written(tmp_path, config)
    said = refused("--socket", str(tmp_path / "vdpad.sock"), "--config", str(path))
    assert said == f"vdpad: {path}: {told(tmp_path, config)}\n"
    assert sorted(tmp_path.iterdir()) == [path]


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings(None)
    assert settings.socket == Path("/run/vdpad/vdpad.sock")
    assert settings.socket_mode == "0660"
    assert (settings.socket_group, settings.allowed_uids) == (None, None)
    assert [device.name for device in settings.software] == ["sim0"]
    assert settings.limits.operations_at_once <= settings.limits.operations_kept


def test_an_empty_file_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "vdpad.toml"
    path.write_text("")
    assert load_settings(path) == load_settings(None)


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vdpad.toml"
    path.write_text('socket = "/there"\nsocket_mode = "0600"\n')
    assert load_settings(path).socket == Path("/there")
    settings = load_settings(path, socket=Path("/here"))
    assert (settings.socket, settings.socket_mode) == (Path("/here"), "0600")


def test_what_the_file_says_holds(tmp_path: Path) -> None:
    limits = {"operations_at_once": 7, "operations_kept": 9}
    with daemon(tmp_path, limits=limits, software=[{"name": "a"}, {"name": "b"}]) as running:
        path = running.socket

        async def ask() -> None:
            with Caller(path) as caller:
                assert (await caller.result("info"))["limits"]["operations_at_once"] == 7
                error = await caller.error(
                    "check",
                    state={"version": 1, "features": []},
                    target={"kind": "software", "name": "sim0"},
                )
                assert "a, b" in error["message"]

        asyncio.run(ask())


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("unknown = 1", "unknown: "),
        ("[limits]\nunknown = 1", "limits.unknown: "),
        ("[limits.operations_at_once]\nx = 1", "limits.operations_at_once: "),
        ("limits = 5", "limits: "),
        ('[limits]\noperations_at_once = "many"', "limits.operations_at_once: "),
        ("[limits]\noperations_at_once = 0", "limits.operations_at_once: "),
        ("[replay]\ndeadline_ms = 600001", "replay.deadline_ms: "),
        ("[replay]\npoll_us = -1", "replay.poll_us: "),
        ('[metrics]\ntextfile = "vdpad.prom"', "metrics.textfile: "),
        ('[metrics]\ntextfile = "/run/vdpad.txt"', "metrics.textfile: "),
        ("[metrics]\ninterval_s = 0", "metrics.interval_s: "),
        ("socket = 5", "socket: "),
        ("socket_mode = 660", "socket_mode: "),
        ('socket_mode = "rw-rw----"', "socket_mode: "),
        ('socket_mode = "0999"', "socket_mode: "),
        ("socket_group = 0", "socket_group: "),
        ('allowed_uids = "root"', "allowed_uids: "),
        ('allowed_uids = [0, "root"]', "allowed_uids.1: "),
        ("allowed_uids = [-1]", "allowed_uids.0: "),
        ("allowed_uids = [4294967295]", "allowed_uids.0: "),
        ("[operators]\nusers = [4294967295]", "operators.users.0"),
        ("[operators]\ngroups = [4294967295]", "operators.groups.0"),
        ('software = "sim0"', "software: "),
        ("[[software]]", "software.0.name: "),
        ('[[software]]\nname = "a b"', "software.0.name: "),
        ('[[software]]\nname = "a"\nfeatures = ["NOPE"]', "software.0.features.0: "),
        ('[[software]]\nname = "a"\nmac = "x"', "software.0.mac: "),
        (
            '[[software]]\nname = "a"\nmisbehave = {faults = {"0" = "explode"}}',
            "software.0.misbehave.faults.0: ",
        ),
        (
            '[[software]]\nname = "a"\n[[software]]\nname = "b"\nring_size = 1',
            "software.1.ring_size: ",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_told_with_its_path(
    tmp_path: Path, config: str, place: str
) -> None:
    assert told(tmp_path, config).startswith(place)


@pytest.mark.parametrize(
    "config",
    [
        "socket",
        "socket = ",
        "= 1",
        "[limits",
        'socket = "a"\nsocket = "b"',
        '{"socket": "a"}',
        b"\xff\xfe",
        b"socket = '\x00'",
    ],
)
def test_a_file_that_is_not_toml_is_told(tmp_path: Path, config: str | bytes) -> None:
    assert "expected TOML" in told(tmp_path, config)


def test_two_software_devices_of_one_name_are_refused(tmp_path: Path) -> None:
    said = told(tmp_path, '[[software]]\nname = "a"\n[[software]]\nname = "a"')
    assert said.startswith("software")


def test_a_ring_size_that_is_no_power_of_two_is_told_with_its_path(tmp_path: Path) -> None:
    said = told(tmp_path, '[[software]]\nname = "a"\nring_size = 3')
    assert said.startswith("software.0.ring_size: ")


def test_a_ring_with_no_room_for_a_legacy_device_s_chain_is_told_with_its_path(
    tmp_path: Path,
) -> None:
    legacy = '[[software]]\nname = "a"\nfeatures = ["CTRL_VQ", "CTRL_VLAN"]\nring_size = 2'
    said = told(tmp_path, legacy)
    assert said.startswith("software.0.ring_size: expected at least 4 without VERSION_1")


def test_a_socket_with_a_nul_in_its_path_is_told(tmp_path: Path) -> None:
    refused("--config", str(written(tmp_path, 'socket = "/tmp/\\u0000vdpad"')))


@pytest.mark.parametrize("name", ["none", "none/vdpad.toml", "."])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    said = refused("--socket", str(tmp_path / "vdpad.sock"), "--config", str(path))
    assert said.startswith(f"vdpad: {path}: ")
    assert "None" not in said
