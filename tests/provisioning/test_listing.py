"""What `devices` prints is read again; what is none is told by path."""

import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import TypeAdapter

from tests.provisioning import made
from vdpad.api.devices import DeviceResult, listed
from vdpad.host.vdpa import VdpaConfig
from vdpad.provisioning.listing import MAX_SIZE, BadListing, is_listing, read_listing

SIM0 = {
    "name": "sim0",
    "mgmtdev": "vdpasim_net",
    "driver": "vhost_vdpa",
    "node": "/dev/vhost-vdpa-1",
    "features": ["MTU", "MAC", "VERSION_1", "ACCESS_PLATFORM", "bit_47"],
    "config": {"mac": "52:54:00:00:00:01", "status": 1, "mtu": 1500},
}


def _listing(**changes: Any) -> bytes:
    """A list of one device with other fields; one that is Ellipsis is left out."""
    device = {key: value for key, value in {**SIM0, **changes}.items() if value is not ...}
    return json.dumps([device], indent=2).encode()


def _problems(data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(BadListing) as caught:
        read_listing(data)
    return [(each.path, each.code) for each in caught.value.problems]


def test_what_is_printed_is_known_by_how_it_begins() -> None:
    assert is_listing(_listing())
    assert is_listing(b"\n [")
    for head in (b"", b'{"version": 1', b"QEVM", b"\0\1["):
        assert not is_listing(head)


def test_a_device() -> None:
    (found,) = read_listing(_listing())
    assert found.name == "sim0"
    assert found.features == {3, 5, 32, 33, 47}
    assert found.config is not None
    assert (found.config.mac, found.config.mtu) == (bytes.fromhex("525400000001"), 1500)
    assert found.config.max_virtqueue_pairs is None


def test_where_it_was_may_be_left_out() -> None:
    written = _listing(**dict.fromkeys(("name", "mgmtdev", "driver", "node"), ...))
    (found,) = read_listing(written)
    assert found.name == ""


def test_devices_of_other_classes_are_left_out() -> None:
    assert read_listing(_listing(features=[], config=None)) == ()
    assert read_listing(b"[]") == ()


@given(made.configs())
def test_what_the_daemon_says_of_any_device_is_read_as_it_is(config: VdpaConfig) -> None:
    said = TypeAdapter(tuple[DeviceResult, ...]).dump_json((listed(made.SIMULATOR, config),))
    (found,) = read_listing(said)
    assert found.config is not None
    assert found.features == config.features
    for field in ("mac", "status", "max_virtqueue_pairs", "mtu"):
        assert getattr(found.config, field) == getattr(config, field)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"features": ["MTU", "WIFI"]}, "0.features.1"),
        ({"features": ...}, "0.features"),
        ({"config": ...}, "0.config"),
        ({"config": {"mac": "52:54:00"}}, "0.config.mac"),
        ({"config": {"mtu": "1500"}}, "0.config.mtu"),
        ({"config": {"mtu": 65536}}, "0.config.mtu"),
        ({"config": {"mtu": True}}, "0.config.mtu"),
        ({"config": {"max_virtqueue_pairs": 0}}, "0.config.max_virtqueue_pairs"),
        ({"config": {"max_virtqueue_pairs": 32769}}, "0.config.max_virtqueue_pairs"),
        ({"config": {"mtus": 1500}}, "0.config.mtus"),
        ({"class": "net"}, "0.class"),
        ({"name": 7}, "0.name"),
    ],
)
def test_what_is_wrong_is_told_by_path(changes: dict[str, Any], path: str) -> None:
    ((found, _),) = _problems(_listing(**changes))
    assert found == path


def test_all_that_is_wrong_is_told() -> None:
    wrong = _listing(features=["WIFI"], config={"mac": "x", "mtu": -1})
    assert {path for path, _ in _problems(wrong)} == {
        *("0.features.0", "0.config.mac", "0.config.mtu")
    }


@pytest.mark.parametrize("data", [b"", b"[", b"[1]", b'{"name": "sim0"}', b"[\xff]", b"[" * 100000])
def test_what_is_no_list_of_devices(data: bytes) -> None:
    assert _problems(data)


def test_a_list_longer_than_any() -> None:
    assert _problems(b"[" + b" " * MAX_SIZE + b"]") == [("", "too-long")]
