"""Our numbers and structures, held against the kernel's headers by a C compiler."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.uapi import BackendFeature, push_iotlb_invalidate, push_iotlb_update
from vdpad.virtio.rings import Region

HEADER = Path("/usr/include/linux/vhost.h")
IOCTLS = {
    name: number
    for name, number in vars(uapi).items()
    if name.isupper() and isinstance(number, int) and number >> 8 & 0xFF == 0xAF
}

# What the headers of Debian 12 (6.1) do not have yet, as those of 6.12 define it.
NEWER = """
#ifndef VHOST_VDPA_RESUME
#define VHOST_VDPA_RESUME _IO(VHOST_VIRTIO, 0x7E)
#endif
#ifndef VHOST_VDPA_GET_VRING_SIZE
#define VHOST_VDPA_GET_VRING_SIZE _IOWR(VHOST_VIRTIO, 0x82, struct vhost_vring_state)
#endif
#ifndef VHOST_BACKEND_F_RESUME
#define VHOST_BACKEND_F_RESUME 0x5
#define VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK 0x6
#endif
#ifndef VHOST_BACKEND_F_DESC_ASID
#define VHOST_BACKEND_F_DESC_ASID 0x7
#define VHOST_BACKEND_F_IOTLB_PERSIST 0x8
#endif
"""
PRELUDE = f"#include <linux/ioctl.h>\n#include <linux/vhost.h>\n{NEWER}"

# Values that stand nowhere else in a structure's image.
A, B, C, D = (digit * 0x11111111_11111111 for digit in range(1, 5))
ASID = 0x66666666


def judge(lines: Iterable[str]) -> str:
    """What the compiler has against a program of these lines; nothing where all is right."""
    skip_or_fail(None if shutil.which("gcc") else "gcc is not installed")
    skip_or_fail(None if HEADER.exists() else "linux-libc-dev is not installed")
    program = PRELUDE + "\n".join(lines)
    done = subprocess.run(
        ["gcc", "-fsyntax-only", "-x", "c", "-"], input=program, text=True, capture_output=True
    )
    return done.stderr


def equal(there: str, ours: int) -> str:
    return f'_Static_assert({there} == {ours}ull, "{there}");'


def either(name: str, number: int) -> str:
    """The ioctl under one of the prefixes that the header has for it."""
    return (
        f"#ifdef VHOST_{name}\n{equal(f'VHOST_{name}', number)}\n"
        f"#else\n{equal(f'VHOST_VDPA_{name}', number)}\n#endif"
    )


def field(type_: str, name: str, image: bytes, value: int, size: int) -> list[str]:
    """That a field lies where this value stands in the image, and is as large."""
    at = image.find(value.to_bytes(size, "little"))
    assert at >= 0
    return [
        equal(f"__builtin_offsetof({type_}, {name})", at),
        equal(f"sizeof((({type_} *)0)->{name})", size),
    ]


def test_the_judge_finds_a_wrong_number() -> None:
    assert "VHOST_SET_OWNER" in judge([equal("VHOST_SET_OWNER", uapi.SET_OWNER + 1)])
    assert "VHOST_VDPA_NOVEL" in judge([either("NOVEL", 1)])


def test_ioctls() -> None:
    assert {"GET_FEATURES", "SUSPEND", "SET_CONFIG_CALL"} <= IOCTLS.keys()
    assert judge(either(name, number) for name, number in IOCTLS.items()) == ""


def test_backend_features() -> None:
    names = {each.name: each.value for each in BackendFeature}
    assert len(names) == 8
    assert judge(equal(f"1ull << VHOST_BACKEND_F_{name}", bit) for name, bit in names.items()) == ""


@pytest.mark.parametrize(
    ("layout", "type_"),
    [
        (uapi.VRING_STATE, "struct vhost_vring_state"),
        (uapi.VRING_FILE, "struct vhost_vring_file"),
        (uapi.VRING_ADDR, "struct vhost_vring_addr"),
        (uapi.IOVA_RANGE, "struct vhost_vdpa_iova_range"),
        (uapi.CONFIG_HEADER, "struct vhost_vdpa_config"),
    ],
)
def test_sizes(layout: struct.Struct, type_: str) -> None:
    assert judge([equal(f"sizeof({type_})", layout.size)]) == ""


def test_the_ring_s_addresses() -> None:
    """The kernel has the used ring before the available one, and the methods the other order."""
    image = uapi.VRING_ADDR.pack(ASID, 0, A, B, C, D)
    type_ = "struct vhost_vring_addr"
    assert (
        judge(
            [
                *field(type_, "index", image, ASID, 4),
                *field(type_, "desc_user_addr", image, A, 8),
                *field(type_, "used_user_addr", image, B, 8),
                *field(type_, "avail_user_addr", image, C, 8),
                *field(type_, "log_guest_addr", image, D, 8),
            ]
        )
        == ""
    )


def test_iotlb_messages() -> None:
    type_ = "struct vhost_msg_v2"
    update = push_iotlb_update(ASID, Region(A, B), C)
    invalidate = push_iotlb_invalidate(ASID, Region(A, B))
    assert update[64:] == invalidate[64:] == bytes(8)
    assert (
        judge(
            [
                equal(f"sizeof({type_})", len(update)),
                equal(f"sizeof({type_})", len(invalidate)),
                *field(type_, "asid", update, ASID, 4),
                *field(type_, "iotlb.iova", update, A, 8),
                *field(type_, "iotlb.size", update, B, 8),
                *field(type_, "iotlb.uaddr", update, C, 8),
                *field(type_, "iotlb.iova", invalidate, A, 8),
                *field(type_, "iotlb.size", invalidate, B, 8),
                # These are small numbers: by their places.
                equal(f"__builtin_offsetof({type_}, type)", 0),
                equal("VHOST_IOTLB_MSG_V2", update[0]),
                equal("VHOST_IOTLB_MSG_V2", invalidate[0]),
                equal(f"__builtin_offsetof({type_}, iotlb.perm)", 32),
                equal("VHOST_ACCESS_RW", update[32]),
                equal(f"__builtin_offsetof({type_}, iotlb.type)", 33),
                equal("VHOST_IOTLB_UPDATE", update[33]),
                equal("VHOST_IOTLB_INVALIDATE", invalidate[33]),
            ]
        )
        == ""
    )
