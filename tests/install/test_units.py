"""The units, by systemd's own judgement, without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from vdpad.wire.addresses import BACK_ENDS, DEFAULT_SOCKET, DEFAULT_VARLINK

from .install import ROOT

UNITS = ROOT / "systemd"
MAX_EXPOSURE = 1.5
HAS_SYSTEMD = shutil.which("systemd-analyze") is not None

NAMES = ("vdpad.service", "vdpad.socket", "vdpad-varlink.socket")
DROP_INS = ((), ("vhost-vdpa",), ("udp",), ("vhost-vdpa", "udp"))


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    skip_or_fail(None if HAS_SYSTEMD else "systemd is not installed")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(params=DROP_INS, ids=lambda each: "+".join(each) or "alone")
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The units in a folder, with drop-ins."""
    for each in NAMES:
        text = (UNITS / each).read_text().replace("/usr/bin/vdpad", "/bin/true")
        (tmp_path / each).write_text(text)
    (tmp_path / "vdpad.service.d").mkdir()
    for each in request.param:
        shutil.copy(UNITS / "optional" / f"{each}.conf", tmp_path / "vdpad.service.d")
    return tmp_path


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    done = analyze("verify", "--man=no", *(units / each for each in NAMES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_exposure_is_small(units: Path) -> None:
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    done = analyze("security", "--offline=true", threshold, units / "vdpad.service")
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"Overall exposure level for vdpad\.service: ([0-9.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= MAX_EXPOSURE


BACK_END = "vdpad-vhost-user@nic0"
KINDS = ("service", "socket")


@pytest.fixture(params=[None, "vdpad-vhost-user-tap"], ids=["vdpa", "tap"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The units of a back end in a folder, as those of one device, with a drop-in or none."""
    for kind in KINDS:
        text = (UNITS / f"vdpad-vhost-user@.{kind}").read_text()
        text = text.replace("/usr/bin/vdpad-vhost-user", "/bin/true")
        (tmp_path / f"{BACK_END}.{kind}").write_text(text)
    if request.param is not None:
        (tmp_path / f"{BACK_END}.service.d").mkdir()
        text = (UNITS / "optional" / f"{request.param}.conf").read_text()
        text = text.replace("/usr/bin/vdpad-vhost-user", "/bin/true")
        (tmp_path / f"{BACK_END}.service.d" / "drop-in.conf").write_text(text)
    return tmp_path


def test_systemd_finds_nothing_wrong_with_a_back_end_s(instance: Path) -> None:
    done = analyze("verify", "--man=no", *(instance / f"{BACK_END}.{it}" for it in KINDS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_exposure_of_a_back_end_is_small(instance: Path) -> None:
    unit = f"{BACK_END}.service"
    done = analyze("security", "--offline=true", instance / unit)
    exposure = re.search(rf"Overall exposure level for {unit}: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stdout + done.stderr
    assert float(exposure[1]) <= MAX_EXPOSURE, done.stdout


def test_a_drop_in_takes_back_no_more_than_it_says() -> None:
    """Whatever restriction a drop-in does not name, its unit keeps."""
    for name, keys in {
        "vhost-vdpa": {
            *("Wants", "After", "PrivateDevices", "DeviceAllow", "LimitMEMLOCK", "PrivateNetwork"),
            *("RestrictAddressFamilies", "FileDescriptorStoreMax", "LimitNOFILE"),
            *("RestartSec", "StartLimitIntervalSec"),
        },
        "udp": {
            *("LoadCredential", "PrivateNetwork", "RestrictAddressFamilies", "IPAddressAllow"),
        },
        "vdpad-vhost-user-tap": {"ExecStart", "DeviceAllow", "LimitMEMLOCK"},
    }.items():
        text = (UNITS / "optional" / f"{name}.conf").read_text()
        assert set(re.findall(r"^(\w+)=", text, re.M)) == keys


def test_the_default_paths_are_those_of_the_documentation() -> None:
    socket = (UNITS / "vdpad.socket").read_text()
    assert f"ListenDatagram={DEFAULT_SOCKET}\n" in socket
    connections = (UNITS / "vdpad-varlink.socket").read_text()
    assert f"ListenStream={DEFAULT_VARLINK}\n" in connections
    assert (str(DEFAULT_SOCKET), str(DEFAULT_VARLINK)) == (
        "/run/vdpad/vdpad.sock",
        "/run/vdpad/io.vdpad",
    )
    back_end = (UNITS / "vdpad-vhost-user@.service").read_text()
    assert f"RuntimeDirectory={BACK_ENDS.relative_to('/run')}/%i\n" in back_end
    assert "d /run/vdpad 0755 root root" in (UNITS / "tmpfiles.conf").read_text()
