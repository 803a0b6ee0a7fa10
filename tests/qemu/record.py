"""Records streams for tests/state/formats/qemu: `python -m tests.qemu.record`.

Each is a real QEMU's, from a device whose guest had set everything that this device takes. What is
left out is other devices and the memory, which has firmware in it: of it, the list of its blocks
and the first chunks stay. The section of the virtio-net device, the header and the description of
what is left are QEMU's own bytes.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.state.formats.qemu import made
from vdpad.virtio.features import Feature

from .guestless import Options
from .options import OLD_MACHINE
from .states import TOGETHER
from .stream import VIRTIO_NET, DeviceState, device_states, find_description
from .test_round_trip import set_up_and_stream
from .versions import BOOKWORM, TRIXIE, TRIXIE_BACKPORTS

FOLDER = Path(__file__).parents[1] / "state/formats/qemu/recorded"
KEPT = (VIRTIO_NET, "globalstate", "apic")
"""The APIC says of a machine that gives no name that it is an x86 one."""

PACKED = frozenset({int(Feature.RING_PACKED)})
"""Offered, which makes QEMU write what packed rings need; the harness drives split ones."""

RECORDINGS = {
    "7.2-pc": ("without-hashes", Options(qemu=BOOKWORM.program)),
    "7.2-pc-2.3": (
        "without-hashes",
        Options(qemu=BOOKWORM.program, machine=OLD_MACHINE, device_properties="disable-modern=off"),
    ),
    "7.2-root-port-msix-rss": (
        "with-rss",
        Options(qemu=BOOKWORM.program, machine="q35", root_port=True, vectors=10),
    ),
    "10.0-q35-msix-rss": (
        "with-rss",
        Options(qemu=TRIXIE.program, machine="q35", vectors=3),
    ),
    "10.0-pc-packed": (
        "without-hashes",
        Options(qemu=TRIXIE.program, device_properties="packed=on", without=PACKED),
    ),
    "11.1-pc-hash-report": ("with-hash-report", Options(qemu=TRIXIE_BACKPORTS.program)),
    "11.1-root-port-msix-rss": (
        "with-rss",
        Options(qemu=TRIXIE_BACKPORTS.program, machine="q35", root_port=True, vectors=10),
    ),
}


def thin(stream: bytes) -> bytes:
    """The stream without most of its memory and most of its devices."""
    states = {(state.name, state.instance): state for state in device_states(stream)}
    described = [
        device
        for device in find_description(stream)[1]["devices"]
        if states[device["name"], device["instance_id"]].kind in KEPT
    ]
    kept = [states[device["name"], device["instance_id"]] for device in described]
    header = stream[: stream.index(made.named("ram")) - 5]
    footers = header != made.OLD_HEADER
    memory = made.ram_sections(
        made.blocks(**{"pc.ram": 4 * made.PAGE, "pc.bios": made.PAGE}),
        made.zero_page("pc.ram") + made.zero_page() + made.page(block="pc.bios"),
        made.zero_page("pc.ram"),
        footers=footers,
    )
    sections = (_section(state, at, footers=footers) for at, state in enumerate(kept, 40))
    return header + memory + b"".join(sections) + _description(stream, described)


def _section(state: DeviceState, number: int, *, footers: bool) -> bytes:
    section = made.Section(state.name, state.body, state.kind, state.instance)
    return made.full(section, number, footers=footers)


def _description(stream: bytes, devices: list[Any]) -> bytes:
    text = json.dumps({**find_description(stream)[1], "devices": devices}).encode()
    return bytes([made.EOF, made.DESCRIPTION]) + struct.pack(">I", len(text)) + text


async def record() -> None:
    """Records them all anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, (sample, options) in RECORDINGS.items():
        properties = TOGETHER[sample].properties
        if properties:
            options = replace(options, device_properties=properties)
        stream = thin(await set_up_and_stream(TOGETHER[sample], options))
        (FOLDER / f"{name}.xz").write_bytes(lzma.compress(stream, preset=9 | lzma.PRESET_EXTREME))
        (FOLDER / f"{name}.json").write_text(json.dumps(TOGETHER[sample].parts, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(record())
