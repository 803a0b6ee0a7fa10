"""The description at a stream's end: which lengths it tells."""

import json
import struct
from typing import Any

import pytest

from vdpad.state.formats.qemu.description import Description, description_in
from vdpad.state.found import FormatError


def described(*devices: dict[str, Any]) -> Description:
    """A description of these devices, behind some other bytes."""
    return read(json.dumps({"page_size": 4096, "devices": devices}))


def read(text: str) -> Description:
    """What a text says, behind some other bytes."""
    length = struct.pack(">I", len(text))
    return description_in(b"\x7e\0\0\0\x29" + b"\0\6" + length + text.encode())


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


DEVICE = '{"name": "a", "instance_id": 0, "size": 1}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'{{"devices": [{DEVICE} {DEVICE}]}}', "a comma between devices, got "),
        (f'{{"devices": [{DEVICE}, 5, {DEVICE}]}}', "a comma between devices, got , 5,"),
        (f'{{"devices": [{DEVICE},]}}', "QEMU's JSON"),
        (f'{{"devices": [{DEVICE}, {{}}]}}', "QEMU's JSON"),
        (f'{{"devices": [{DEVICE}]', "QEMU's JSON"),
        (f'{{"devices": [{DEVICE}]}}}}', "QEMU's JSON"),
        (f'{{"devices": [[{DEVICE}]]}}', "devices with a name and an instance_id"),
        (f'{{"other": [{DEVICE}]}}', "QEMU's JSON"),
        (f'{{"devices": [{{"x": {DEVICE}}}]}}', "QEMU's JSON|a name and an instance_id"),
        (f'{{"devices": [{{"name": "a", "instance_id": 0, "x": {DEVICE}}}]}}', "QEMU's JSON"),
        ('{"devices": [{"name": "a", "size": 1}]}', "a name and an instance_id"),
        ('{"devices": [{"name": "a", "instance_id": 0, "fields": [[]]}]}', "QEMU's JSON"),
        ('{"devices": [{"name": "a", "instance_id": 0, "fields": "x"}]}', "QEMU's JSON"),
        ('{"devices": 5}', "QEMU's JSON|a name and an instance_id"),
        ("[]", "QEMU's JSON"),
    ],
)
def test_what_qemu_does_not_write_is_refused(text: str, why: str) -> None:
    with pytest.raises(FormatError, match=f"the description .*: expected .*({why})"):
        read(text)


def test_a_name_may_hold_what_a_device_begins_with() -> None:
    name = '{"name": "b", "instance_id": 1, ['
    assert set(described({"name": name, "instance_id": 0, "size": 1}).devices) == {(name, 0)}


def test_devices_may_be_as_many_and_as_long_as_those_of_large_machines() -> None:
    """512 processors, with what ARM's interrupt controller describes of each."""
    field = {"name": "gicr_ipriorityr", "type": "uint8", "array_len": 32, "size": 1}
    cpu = {"vmsd_name": "arm_gicv3_cpu", "version": 1, "fields": [field] * 20}
    struct_field = {"name": "cpu", "type": "struct", "struct": cpu, "size": 640}
    gic = {"name": "arm_gicv3", "instance_id": 0, "vmsd_name": "", "fields": [struct_field] * 512}
    cpus = (
        {"name": "cpu", "instance_id": number, "vmsd_name": "cpu", "fields": [field] * 20}
        for number in range(2048)
    )
    found = described(gic, *cpus)
    assert found.devices["arm_gicv3", 0].size == 512 * 640
    assert len(found.devices) == 2049


@pytest.mark.parametrize(
    ("device", "count", "why"),
    [
        ('{"name": "a", "instance_id": 0, "size": 1}', 8193, "at most 8192 devices, got 8193"),
        ('{"name": "a", "instance_id": 0, "x": "%s"}' % ("y" * 1_310_720), 1, "bytes of a device"),
        ('{"name": "a", "instance_id": 0, "x": [%s0]}' % ("0," * 999), 2, "at most .* values"),
        (
            f'{{"name": "{"a" * 99}", "instance_id": 0, "x": {"[" * 14}}}',
            2,
            "most .* containers",
        ),
        ('{"name": "a", "instance_id": 0, %s}' % ('"x":10000,' * 99), 2, "at most .* names"),
    ],
)
def test_more_than_qemu_writes_is_refused(device: str, count: int, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        read(f'{{"devices": [{", ".join([device] * count)}]}}')
