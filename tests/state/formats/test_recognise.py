"""Formats by their first bytes, from files and from pipes."""

import contextlib
import io
import os
import struct
import threading
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import case
from tests.state.formats.qemu import made
from tests.support.pipe import Pipe
from tests.support.states import bare_state, net_state
from vdpad.state.formats import device_parts, native
from vdpad.state.formats.recognise import DEVICE_PARTS, NATIVE, QEMU_STREAM, read
from vdpad.state.found import FormatError

STATE = net_state()
NATIVE_BYTES = native.encode(STATE)
# A state that device parts carry whole.
IN_PARTS = bare_state(
    ["CTRL_VQ", "CTRL_VLAN", "CTRL_MAC_ADDR"], mac="52:54:00:12:34:56", vlans=[[0, 7]]
)
PARTS_BYTES = device_parts.encode(IN_PARTS).data


class Trickle(io.RawIOBase):
    """A stream that gives a byte at a time, as a pipe may, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        given = min(1, size) if size >= 0 else 1
        chunk, self._rest = self._rest[:given], self._rest[given:]
        return chunk


def _streams(data: bytes) -> list[BinaryIO]:
    return [io.BytesIO(data), Trickle(data)]  # type: ignore[list-item]


def _refused(data: bytes) -> str:
    said = set()
    for stream in _streams(data):
        with pytest.raises(FormatError) as refused:
            read(stream)
        said.add(str(refused.value))
    (sentence,) = said
    return sentence


@pytest.mark.parametrize("before", [b"", b"\n", b" \t\r\n" * 100])
def test_native(before: bytes) -> None:
    for stream in _streams(before + NATIVE_BYTES):
        reading = read(stream)
        assert reading.format == NATIVE
        assert [each.state for each in reading.devices] == [STATE]


def test_device_parts() -> None:
    for stream in _streams(PARTS_BYTES):
        reading = read(stream)
        assert reading.format == DEVICE_PARTS
        assert [each.state for each in reading.devices] == [IN_PARTS]


@pytest.mark.parametrize("kind", [*range(0x100, 0x106), 0x200])
@pytest.mark.parametrize("flags", [0, 1])
def test_every_type_of_part_is_one(kind: int, flags: int) -> None:
    """It is their own reader that finds it cut."""
    assert "it begins with" not in _refused(struct.pack("<HBB", kind, flags, 0))


@pytest.mark.parametrize(
    "head", [(0xFF, 0, 0), (0x106, 0, 0), (0x201, 0, 0), (0x100, 2, 0), (0x100, 0, 1), (0x1, 1, 0)]
)
def test_what_is_no_part_is_none(head: tuple[int, int, int]) -> None:
    assert "it begins with" in _refused(struct.pack("<HBB", *head) + bytes(28))


def test_a_qemu_stream_goes_to_its_own_reader() -> None:
    assert "it begins with" not in _refused(b"QEVM\0\0\0\x03")


def test_a_pipe_is_read_while_it_is_written() -> None:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as stream:
            for at in range(0, len(NATIVE_BYTES), 7):
                stream.write(NATIVE_BYTES[at : at + 7])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        assert read(stream).devices[0].state == STATE
        assert not stream.closed
    thread.join()


class Endless(io.RawIOBase):
    """A pipe that never ends; reading too much of it is a failure."""

    def __init__(self, head: bytes, filler: bytes) -> None:
        self._head, self._filler, self.given = head, filler, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        assert size >= 0
        self.given += size
        assert self.given < 3 * native.MAX_SIZE
        chunk, self._head = self._head[:size], self._head[size:]
        return chunk or self._filler * size


@pytest.mark.parametrize("head", [b"{", b" ", struct.pack("<HBB", 0x200, 0, 0)])
def test_memory_is_bounded(head: bytes) -> None:
    with pytest.raises(FormatError, match="at most"):
        read(Endless(head, b" "))  # type: ignore[arg-type]


# --- what is not ours ---


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"[]", "it begins with '[]'"),
        (b"<domain type='kvm'>", 'it begins with "<domain type=\'kv"'),
        (b"\x7fELF\x02\x01\x01", "it begins with 7f 45 4c 46 02 01 01"),
        (b"\xef\xbb\xbf{}", "it begins with ef bb bf 7b 7d"),
        (b"\x1f\x8b\x08\0", "gzip -dc FILE | vdpactl decode -"),
        (b"\x28\xb5\x2f\xfd\0", "zstd -dc FILE | vdpactl decode -"),
        (b"\xfd7zXZ\0\0", "xz -dc FILE | vdpactl decode -"),
        (b"\x89LZO\0\r\n\x1a\n\0", "lzop -dc FILE | vdpactl decode -"),
        (b"BZh91AY", "bzip2 -dc FILE | vdpactl decode -"),
        (b"LibvirtQemudSave\2\0", "ends within its header"),
        (b"LibvirtQemudPart" + bytes(80), "never finished"),
    ],
)
def test_what_it_is_instead(data: bytes, said: str) -> None:
    assert said in _refused(data)


@pytest.mark.parametrize(
    ("compressed", "pipe"),
    [(0, ""), (1, " | gzip -dc"), (3, " | xz -dc"), (5, " | zstd -dc")],
)
def test_where_the_stream_is_in_an_image_of_libvirt_s(compressed: int, pipe: str) -> None:
    """The advice, followed, gives the stream."""
    image = _libvirt_image(compressed, b"QEVM")
    said = _refused(image)
    first = int(said.partition("tail -c +")[2].partition(" ")[0])
    assert image[first - 1 :] == b"QEVM"
    assert said.endswith(f" FILE{pipe} | vdpactl decode -")


def _libvirt_image(form: int, stream: bytes) -> bytes:
    xml = b"<domain/>\0"
    header = struct.pack("<16s19I", b"LibvirtQemudSave", 2, len(xml), 1, form, *[0] * 15)
    return header + xml + stream


def test_an_image_of_libvirt_s_in_a_format_that_is_not_known() -> None:
    said = _refused(_libvirt_image(9, b"QEVM"))
    assert "in a format that is not known, 9; " in said
    assert said.endswith("virsh save --image-format raw")


def _mapped(at: int) -> bytes:
    """A stream with mapped-ram, which begins at this byte of its file."""
    names = struct.pack(">I", 1) + made.named("mapped-ram")
    capabilities = made.subsection("configuration/capabilities", names)
    entry = struct.pack(">Q", made.PAGE | 4) + made.named("pc.ram") + struct.pack(">Q", made.PAGE)
    head = made.header("pc-q35-10.0", capabilities) + made.opening(made.START, 2, "ram") + entry
    pages_at = at + len(head) + 4 + 3 * 8 + 5000
    places = struct.pack(">IQQQ", 1, made.PAGE, pages_at - made.PAGE, pages_at) + bytes(5000)
    memory = b"\xee" * made.PAGE + made.CHUNK_END + made.footer(2)
    net = made.Net().section()
    return head + places + memory + made.full(net, 10) + made.description([net.described()])


def test_a_sparse_image_of_libvirt_s_is_read_where_it_stands() -> None:
    """Its places count from its own first byte."""
    before = len(_libvirt_image(6, b""))
    image = _libvirt_image(6, _mapped(before))
    streams = [*_streams(image), io.BufferedReader(Pipe(image))]
    for stream in streams:
        reading = read(stream)
        assert reading.format == QEMU_STREAM
        assert reading.about == (("machine", "pc-q35-10.0"),)
        assert [each.device for each in reading.devices] == ["0000:00:03.0"]


def test_a_sparse_image_that_is_cut_is_refused_by_its_own_bytes() -> None:
    """The shared one ends within the stream's header."""
    image = case("libvirt_sparse.img")
    assert _refused(image).startswith(f"at byte {len(image)}, in the run of sections: expected 1 ")
    assert "in libvirt's header: expected" in _refused(image[:100])


@given(st.binary(max_size=200))
def test_no_bytes_are_a_crash(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        read(io.BytesIO(data))


def test_a_file_stays_one_that_can_be_read_from_its_end() -> None:
    """As a QEMU stream needs it whose description is behind more than is held of a pipe."""
    late = made.Section("slirp", bytes(18 << 20), "slirp")
    net = made.Net().section()
    whole = made.stream(late, net)
    stream = io.BytesIO(b"before it" + whole)
    stream.seek(len(b"before it"))
    assert len(read(stream).devices) == 1
    with pytest.raises(FormatError, match="as in a file"):
        read(io.BufferedReader(Pipe(whole, most=1 << 16)))
