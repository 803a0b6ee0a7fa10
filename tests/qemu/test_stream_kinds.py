"""Streams that are not the usual one: of old machines, with early sections, in an image."""

from __future__ import annotations

import io
import json
import mmap
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.state.formats.qemu.faults import READERS
from tests.support.pipe import Pipe
from vdpad.state.formats import recognise
from vdpad.state.formats.qemu import QemuStream
from vdpad.state.found import FormatError, Found
from vdpad.state.model import NetState

from .driver import driven
from .guestless import Guestless, Options
from .layout import DATA_RINGS, MEMORY_SIZE, MIB
from .options import OLD_MACHINE
from .states import TOGETHER, state_of
from .test_round_trip import commands_of
from .versions import BOOKWORM, TRIXIE, TRIXIE_BACKPORTS

SAMPLE = TOGETHER["without-hashes"]
OLD = Options(qemu=BOOKWORM.program, machine=OLD_MACHINE, device_properties="disable-modern=off")
VIRTIO_MEM = (
    *("-m", "maxmem=1G,slots=1"),
    *("-object", "memory-backend-ram,id=plugged,size=256M"),
    *("-device", "virtio-mem-pci,memdev=plugged"),
)
NEWER = pytest.mark.parametrize("program", [TRIXIE, TRIXIE_BACKPORTS], ids=str, indirect=True)


@asynccontextmanager
async def set_up(options: Options) -> AsyncIterator[Guestless]:
    """A device whose guest has sent what makes SAMPLE."""
    async with driven(options) as (qemu, driver):
        state = NetState.model_validate_json(json.dumps(state_of(qemu, SAMPLE.parts)))
        for command in commands_of(state):
            assert await driver.send(command) == 0, command.hex()
        yield qemu


def assert_sample(found: Found) -> None:
    """It has what the guest sent."""
    assert found.state is not None, found.problems
    has = json.loads(found.state.model_dump_json(exclude_none=True))
    expected = NetState.model_validate_json(json.dumps({**has, **SAMPLE.parts}))
    assert found.state == expected


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("program", [BOOKWORM], ids=str, indirect=True)
async def test_a_machine_before_2_4(program: str, read: Callable[[bytes], QemuStream]) -> None:
    async with set_up(OLD) as qemu:
        stream = await qemu.stream()
    found = read(stream)
    assert found.machine == ""
    (device,) = found.devices
    assert_sample(device)


async def test_a_machine_that_describes_no_section(program: str) -> None:
    more = ("-machine", "suppress-vmdesc=on")
    async with set_up(Options(qemu=program, more=more)) as qemu:
        stream = await qemu.stream()
    for read in READERS:
        with pytest.raises(FormatError, match="of a machine with suppress-vmdesc"):
            read(stream)


async def test_an_announcement_that_the_guest_has_not_acknowledged(program: str) -> None:
    async with set_up(Options(qemu=program)) as qemu:
        await qemu.qmp.execute("announce-self", initial=50, max=50, rounds=1, step=1)
        stream = await qemu.stream()
    for read in READERS:
        (device,) = read(stream).devices
        assert_sample(device)
        assert dict(device.about)["announcement"] == "asked of the guest, and not acknowledged"


@NEWER
async def test_sections_before_more_memory_than_is_held_of_a_pipe(program: str) -> None:
    async with set_up(Options(qemu=program, more=VIRTIO_MEM)) as qemu:
        with mmap.mmap(qemu.lend.memory_fd, MEMORY_SIZE) as memory:
            much = MEMORY_SIZE - DATA_RINGS - 8 * MIB
            memory[-much:] = b"\xa5" * much
        stream = await qemu.stream()
    assert len(stream) > much
    assert b"virtio-mem-device-early" in stream[:1000]
    for read in READERS:
        (device,) = read(stream).devices
        assert_sample(device)


@NEWER
async def test_a_sparse_image_as_libvirt_has_qemu_write_it(program: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    xml = b"<domain type='kvm'/>\0"
    header = struct.pack("<16s19I", b"LibvirtQemudSave", 2, len(xml), 1, 6, *[0] * 15) + xml
    image.write_bytes(header)
    async with set_up(Options(qemu=program)) as qemu:
        on = [{"capability": "mapped-ram", "state": True}]
        await qemu.qmp.execute("migrate-set-capabilities", capabilities=on)
        await qemu.qmp.migrate(f"file:{image},offset={len(header)}")
    data = image.read_bytes()
    assert data.startswith(header + b"QEVM")
    with image.open("rb") as file:
        readings = [recognise.read(file)]
    readings.append(recognise.read(io.BufferedReader(Pipe(data, most=1 << 16))))
    for reading in readings:
        (device,) = reading.devices
        assert_sample(device)
