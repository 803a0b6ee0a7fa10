"""What the documentation shows is true: examples run, the configuration holds the defaults."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, daemon
from vdpad.daemon.configuration import load_settings

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """The socket of a running daemon."""
    with daemon(tmp_path) as running:
        yield running.socket


def test_the_demo_says_that_the_devices_state_equals_the_state_sent() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("outcome       restored") == 2
    assert done.stdout.count("The device's state equals the state sent") == 2


def test_the_back_end_s_demo_says_that_the_device_has_what_it_had() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.backend.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "  VLAN_ADD vid=100: OK\n" in done.stdout
    assert done.stdout.endswith("The device has what it had.\n")


def test_the_lender_has_its_state_restored(socket: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "lender.py", socket, EXAMPLES / "state.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "restored: 37 of 37 commands applied" in done.stdout
    # VLAN 100, little-endian, as the device saw it.
    assert "class 2 command 0: 6400" in done.stdout


def test_the_lender_uses_nothing_of_vdpads() -> None:
    assert not re.search(r"^\s*(import|from) vdpad", (EXAMPLES / "lender.py").read_text(), re.M)


def test_the_configuration_file_holds_the_defaults() -> None:
    assert load_settings(ROOT / "config" / "vdpad.toml") == load_settings(None)


PAGES = [
    *sorted(each.name for each in ROOT.glob("*.md")),
    *sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\((?!https://)([^)]+)\)", path.read_text()):
        file, _, place = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not place or place in _places(target.read_text()), link


@pytest.mark.parametrize("page", [*PAGES, "docs/man/vdpad.8.rst", "docs/man/vdpactl.1.rst"])
def test_what_is_pasted_waits_for_what_it_began(page: str) -> None:
    """A program in the background is not there yet when the next line is run."""
    lines = (ROOT / page).read_text().splitlines()
    assert [each for each in lines if re.match(r"    .*[^&]&$", each)] == []


def test_the_path_of_a_commit_belongs_in_a_client_that_is_up() -> None:
    for page in ("lending.md", "man/vdpactl.1.rst"):
        text = (ROOT / "docs" / page).read_text()
        assert "0.2 s to start" in text
        assert re.search(r"process that is up|client that is up", text)
    assert "python -m benchmarks.asking" in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_measurements_can_be_made_again() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    modules = set(re.findall(r"python -m (benchmarks[.a-z]*)", text))
    assert len(modules) >= 2
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module


def _places(text: str) -> set[str]:
    """What its headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
