"""The description at a stream's end: which lengths it tells."""

import json
import struct
from typing import Any

from vdpad.state.formats.qemu.description import Description, description_in


def described(*devices: dict[str, Any]) -> Description:
    """A description of these devices, behind some other bytes."""
    text = json.dumps({"page_size": 4096, "devices": devices}).encode()
    return description_in(b"\x7e\0\0\0\x29" + b"\0\6" + struct.pack(">I", len(text)) + text)


def size(*fields: dict[str, Any], **more: Any) -> int:
    """The length of a section with these fields."""
    device = {"name": "a", "instance_id": 0, "vmsd_name": "a", "fields": fields, **more}
    return described(device).devices["a", 0].size


def test_fields_add_up() -> None:
    assert size() == 0
    assert size({"name": "x", "size": 4}, {"name": "y", "size": 2}) == 6


def test_an_array_of_like_elements_is_described_once() -> None:
    assert size({"name": "x", "array_len": 3, "size": 4}, {"name": "y", "size": 1}) == 13


def test_a_structure_is_as_long_as_its_field_says() -> None:
    """What it holds is described too, and not counted twice."""
    inner = {"vmsd_name": "b", "version": 1, "fields": [{"name": "z", "size": 4}]}
    assert size({"name": "x", "type": "struct", "struct": inner, "size": 4}) == 4
    assert size({"name": "x", "type": "tmp", "size": 10, **inner}) == 10


def test_subsections_have_a_header_of_their_own() -> None:
    below = {"vmsd_name": "a/b/c", "version": 1, "fields": [{"name": "z", "size": 2}]}
    part = {"vmsd_name": "a/b", "version": 1, "fields": [{"name": "y", "size": 8}]}
    header = 1 + 1 + 4
    assert size(subsections=[part]) == header + len("a/b") + 8
    nested = {**part, "subsections": [below]}
    assert size(subsections=[nested, part]) == (
        2 * (header + len("a/b") + 8) + header + len("a/b/c") + 2
    )


def test_a_device_of_the_old_style_has_a_size_of_its_own() -> None:
    old = {"name": "slirp", "instance_id": 0, "size": 9, "fields": [{"name": "data", "size": 9}]}
    assert described(old).devices["slirp", 0].size == 9
    assert described(old).devices["slirp", 0].kind == ""


def test_devices_are_told_apart_by_name_and_instance() -> None:
    devices = [
        {"name": name, "instance_id": instance, "vmsd_name": "k", "fields": []}
        for name, instance in (("a", 0), ("a", 1), ("b", -1))
    ]
    assert set(described(*devices).devices) == {("a", 0), ("a", 1), ("b", -1)}


def test_what_stands_beside_the_devices_is_no_device() -> None:
    text = json.dumps(
        {
            "configuration": {"vmsd_name": "configuration", "version": 1, "fields": []},
            "page_size": 4096,
            "devices": [],
        }
    ).encode()
    assert description_in(b"\0\6" + struct.pack(">I", len(text)) + text).devices == {}
