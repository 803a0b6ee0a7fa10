"""The addresses of a device, where the process before was of another version."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vdpad.backend.kept.addresses import Addresses
from vdpad.backend.kept.kept_addresses import KeptAddresses
from vdpad.backend.process_events import AddressesUnreadable
from vdpad.service.events.event import Event

OWN, GUESTS, OTHER = (bytes.fromhex(f"5254000000{each:02x}") for each in (1, 2, 3))
FILE = "device.addresses"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def given(directory: int, own: bytes, guests: bytes) -> None:
    """A process that has given its device a guest's address, and is killed."""
    addresses = Addresses(own)
    KeptAddresses("net0", directory, lambda _: None).keep(addresses)
    addresses.gives(guests)


def recalled(directory: int, shown: bytes) -> tuple[bytes, list[str]]:
    """The device's own, as the next process has it, and what is told."""
    told: list[Event] = []
    kept = KeptAddresses("net0", directory, told.append)
    addresses = kept.recall(shown)
    kept.keep(addresses)
    return addresses.own, [each.reason for each in told if isinstance(each, AddressesUnreadable)]


def test_a_downgrade_and_an_upgrade_lose_nothing(tmp_path: Path, directory: int) -> None:
    given(directory, OWN, GUESTS)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("1", "9", 1))
    own, (why,) = recalled(directory, GUESTS)
    assert own == GUESTS
    assert why.startswith(f"{FILE} cannot be read: version: ")
    assert "was set aside as device.unreadable" in why
    assert recalled(directory, GUESTS) == (GUESTS, [])
    aside = tmp_path / "device.unreadable"
    aside.write_text(aside.read_text().replace("9", "1", 1))
    assert recalled(directory, GUESTS) == (OWN, [])
    assert os.listdir(tmp_path) == [FILE]


def test_what_is_set_aside_is_looked_at_once(tmp_path: Path, directory: int) -> None:
    given(directory, OWN, GUESTS)
    (tmp_path / FILE).rename(tmp_path / "device.unreadable")
    assert recalled(directory, OTHER) == (OTHER, [])
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_set_aside_is_not_said_to_be(tmp_path: Path, directory: int) -> None:
    (tmp_path / FILE).write_text("{}")
    (tmp_path / "device.unreadable").mkdir()
    _, (why,) = recalled(directory, GUESTS)
    assert "could not be set aside: Is a directory" in why
