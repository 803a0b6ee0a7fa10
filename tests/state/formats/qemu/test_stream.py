"""The walk: what it passes over, and where it stops."""

import io
import struct
from typing import Any

import pytest

from tests.cases import case
from tests.state.formats.qemu import made
from tests.support.pipe import Pipe
from vdpad.state.formats.qemu import QemuStream, read_stream
from vdpad.state.formats.qemu.description import MAX_DESCRIPTION
from vdpad.state.found import FormatError

NET = made.Net().section()


def read_file(data: bytes) -> QemuStream:
    """Read as a file."""
    return read_stream(io.BytesIO(data))


def read_pipe(data: bytes) -> QemuStream:
    """Read as a pipe."""
    return read_stream(io.BufferedReader(Pipe(data)))


def read_raw_pipe(data: bytes) -> QemuStream:
    """Read as a pipe that nobody buffers."""
    return read_stream(Pipe(data))  # type: ignore[arg-type]


@pytest.fixture(params=[read_file, read_pipe, read_raw_pipe])
def read(request: pytest.FixtureRequest) -> Any:
    """Each way of reading a stream."""
    return request.param


def test_tells_the_machine_and_its_devices_in_their_order(read: Any) -> None:
    sections = [made.Net().section(f"0000:00:0{at}.0/virtio-net") for at in (3, 7, 5)]
    found = read(made.stream(*sections, machine="pc-i440fx-7.2"))
    assert found.machine == "pc-i440fx-7.2"
    assert [each.device for each in found.devices] == [
        "0000:00:03.0",
        "0000:00:07.0",
        "0000:00:05.0",
    ]


def test_reads_from_where_a_file_stands() -> None:
    file = io.BytesIO(b"before it" + made.stream(NET))
    file.seek(len(b"before it"))
    assert len(read_stream(file).devices) == 1


def test_a_machine_without_virtio_net_has_no_devices(read: Any) -> None:
    assert read(made.stream(made.Section("timer", bytes(24), "timer"))).devices == ()


def test_devices_of_one_name_are_told_apart() -> None:
    found = read_file(made.stream(NET, made.Net().section(instance=1)))
    assert [each.device for each in found.devices] == ["0000:00:03.0", "0000:00:03.0#1"]


def test_other_devices_are_passed_over(read: Any) -> None:
    others = [made.Section("timer", bytes(24), "timer"), made.Section("slirp", b"\x7e" * 99)]
    assert len(read(made.stream(others[0], NET, others[1])).devices) == 1


def test_a_device_that_is_not_over_pci_is_told_and_not_guessed(read: Any) -> None:
    other = made.Section("virtio-mmio@000000000a000000/virtio-net", bytes(99), "virtio-net")
    mmio, pci = read(made.stream(other, NET)).devices
    assert mmio.state is None
    assert [problem.code for problem in mmio.problems] == ["unsupported"]
    assert pci.state is not None


# --- devices that cannot be read ---

BROKEN = made.Net(before=made.subsection("virtio-net-device/novel", bytes(16)))


@pytest.mark.parametrize("at", range(3))
def test_a_device_that_cannot_be_read_is_a_problem_and_others_are_told(read: Any, at: int) -> None:
    devices = [made.Net(features=MAC_FEATURES) for _ in range(3)]
    devices[at] = BROKEN
    sections = [each.section(f"0000:00:0{3 + n}.0/virtio-net") for n, each in enumerate(devices)]
    found = read(made.stream(*sections)).devices
    assert [each.device for each in found] == [f"0000:00:0{3 + n}.0" for n in range(3)]
    (problem,) = found[at].problems
    assert (problem.path, problem.code) == ("", "unreadable")
    assert f"in the virtio-net section of 0000:00:0{3 + at}.0: " in problem.message
    assert "'virtio-net-device/novel'" in problem.message
    assert [each.state is None for each in found] == [n == at for n in range(3)]


def test_a_device_s_place_in_the_stream_is_told(read: Any) -> None:
    whole = made.stream(NET, BROKEN.section("0000:00:04.0/virtio-net"))
    (problem,) = read(whole).devices[1].problems
    place = int(problem.message.removeprefix("at byte ").split(",")[0])
    assert whole[place - 4 - len("virtio-net-device/novel") :].startswith(
        b"virtio-net-device/novel"
    )


def test_a_device_that_is_too_long_is_a_problem_and_others_are_told(read: Any) -> None:
    long = made.Section("0000:00:03.0/virtio-net", bytes((8 << 20) + 1), "virtio-net")
    other = made.Net(features=MAC_FEATURES).section("0000:00:04.0/virtio-net")
    first, second = read(made.stream(long, other)).devices
    (problem,) = first.problems
    assert (first.device, problem.code) == ("0000:00:03.0", "unreadable")
    assert "expected at most 8388608 bytes, got 8388609" in problem.message
    assert second.state is not None


def test_a_nic_with_a_subsection_that_is_not_known(read: Any) -> None:
    first, second = read(case("one_nic_with_coalescing_subsection.stream")).devices
    (problem,) = first.problems
    assert (first.device, first.state, problem.code) == ("0000:00:03.0", None, "unreadable")
    assert "'virtio-net-device/notf-coal'" in problem.message
    assert (second.device, second.problems) == ("0000:00:04.0", ())
    assert second.state.vlans == (7,)


def test_a_nic_whose_back_end_has_state_of_its_own(read: Any) -> None:
    first, second = read(case("two_nics_one_with_backend_state.stream")).devices
    assert (first.state.vlans, second.state.vlans) == ((5,), (7,))
    (note,) = first.notes
    assert "'virtio-net-device/backend' has 48 bytes" in note
    assert second.notes == ()


# --- machines before 2.4 ---


def test_a_machine_before_2_4_has_neither_footers_nor_a_name(read: Any) -> None:
    apic = made.Section("apic", bytes(8), "apic")
    nets = [
        made.Net(features=VLAN_FEATURES, vlans=b"\x20" + bytes(511)).section(
            f"0000:00:0{at}.0/virtio-net"
        )
        for at in (3, 4)
    ]
    found = read(made.old_stream(nets[0], apic, nets[1]))
    assert found.machine == ""
    assert [each.state.vlans for each in found.devices] == [(5,), (5,)]


VLAN_FEATURES = 1 << 17 | 1 << 19


def test_without_an_apic_the_byte_order_of_an_old_machine_is_not_guessed(read: Any) -> None:
    (found,) = read(made.old_stream(made.Net(features=VLAN_FEATURES).section())).devices
    assert [(each.path, each.code) for each in found.problems] == [("vlans", "unsupported")]
    (found,) = read(made.old_stream(made.Net(features=MAC_FEATURES).section())).devices
    assert found.state.mac == made.MAC


def test_a_length_that_is_not_an_old_section_s_is_noticed_behind_it(read: Any) -> None:
    whole = made.old_stream(NET, made.Section("timer", bytes(24), "timer"))
    wrong = whole.replace(b'"size": 24', b'"size": 23')
    assert wrong != whole
    assert "the description" in _refusal(read, wrong)


def test_footers_may_not_be_left_out_of_some_sections(read: Any) -> None:
    memory = made.ram_sections(made.blocks(**{"pc.ram": made.PAGE}), b"")
    some = b"QEVM\0\0\0\3" + memory + made.full(NET, 10, footers=False)
    assert "expected the section's footer" in _refusal(
        read, some + made.description([NET.described()])
    )
    assert "expected the section's footer" in _refusal(
        read, made.stream(NET, ram=made.ram_sections(b"", b"", footers=False))
    )


# --- memory ---


def test_pages_of_every_kind_are_passed_over(read: Any) -> None:
    chunks = b"".join(
        (
            made.page(),
            made.page(block=None, address=made.PAGE),
            made.zero_page("pc.ram"),
            made.zero_page(),
            struct.pack(">Q", 0x200),
            struct.pack(">Q", 0x40) + made.named("pc.ram") + b"\1" + struct.pack(">H", 3) + b"abc",
            struct.pack(">Q", 0x60) + b"\1" + struct.pack(">H", 2) + b"ab",
            struct.pack(">Q", 0x120) + struct.pack(">I", 5) + b"abcde",
        )
    )
    memory = made.ram_sections(
        made.blocks(**{"pc.ram": 1 << 20, "vga": made.PAGE}), chunks, chunks, b""
    )
    assert len(read(made.stream(NET, ram=memory)).devices) == 1


def test_a_page_that_looks_like_a_stream_is_a_page(read: Any) -> None:
    forged = made.stream(made.Net(mac=b"\x02forge").section())[: made.PAGE]
    memory = made.ram_sections(made.blocks(**{"pc.ram": made.PAGE}), made.page(forged), b"")
    (found,) = read(made.stream(made.Net(features=MAC_FEATURES).section(), ram=memory)).devices
    assert found.state.mac == made.MAC


MAC_FEATURES = 1 << 17 | 1 << 23


def test_with_ignore_shared_each_block_has_an_address(read: Any) -> None:
    entry = made.named("pc.ram") + struct.pack(">QQ", made.PAGE, 0xFFFC0000)
    memory = made.ram_sections(struct.pack(">Q", made.PAGE | 4) + entry, b"")
    made_stream = made.stream(NET, ram=memory, configuration=[_capabilities("x-ignore-shared")])
    assert len(read(made_stream).devices) == 1


@pytest.mark.parametrize("gap", [0, 3 << 20])
def test_with_mapped_ram_pages_stand_behind_each_block(read: Any, gap: int) -> None:
    head = made.header("pc-q35-10.0", _capabilities("mapped-ram"))
    opening = made.opening(made.START, 2, "ram")
    entry = struct.pack(">Q", made.PAGE | 4) + made.named("pc.ram") + struct.pack(">Q", made.PAGE)
    pages_at = len(head + opening + entry) + 4 + 3 * 8 + gap
    mapped = struct.pack(">IQQQ", 1, made.PAGE, pages_at, pages_at) + bytes(gap)
    memory = opening + entry + mapped + b"\xee" * made.PAGE + made.CHUNK_END + made.footer(2)
    rest = made.full(NET, 10) + made.description([NET.described()])
    assert len(read(head + memory + rest).devices) == 1


def test_a_mapped_block_that_is_left_out_has_no_place(read: Any) -> None:
    """As QEMU 11.1 writes one that another process shares, with ignore-shared."""
    entry = made.named("mem") + struct.pack(">QQ", made.PAGE, 0)
    nowhere = struct.pack(">IQQQ", 1, made.PAGE, 0, 0)
    memory = made.ram_sections(struct.pack(">Q", made.PAGE | 4) + entry + nowhere, b"")
    both = _capabilities("x-ignore-shared", "mapped-ram")
    assert len(read(made.stream(NET, ram=memory, configuration=[both])).devices) == 1


@pytest.mark.parametrize(
    ("pages_at", "words"),
    [
        (1, "expected the pages at byte"),
        (24, "expected the pages at byte"),
        (1 << 63, "before the end"),
    ],
)
def test_mapped_pages_that_are_not_behind_their_block(read: Any, pages_at: int, words: str) -> None:
    """Going back would go round in circles."""
    entry = struct.pack(">Q", made.PAGE | 4) + made.named("pc.ram") + struct.pack(">Q", made.PAGE)
    mapped = struct.pack(">IQQQ", 1, made.PAGE, 0, pages_at)
    memory = made.opening(made.START, 2, "ram") + entry + mapped + bytes(99)
    with pytest.raises(FormatError, match=words):
        read(made.header("pc", _capabilities("mapped-ram")) + memory)


def test_other_page_sizes(read: Any) -> None:
    bits = made.subsection("configuration/target-page-bits", struct.pack(">I", 14))
    chunk = struct.pack(">Q", 0x08) + made.named("mem") + bytes(1 << 14)
    memory = made.ram_sections(made.blocks(mem=1 << 14), chunk, b"")
    made_stream = made.stream(NET, ram=memory, configuration=[bits], machine="virt-9.0")
    assert len(read(made_stream).devices) == 1


def test_a_device_before_the_memory(read: Any) -> None:
    """As virtio-mem's, which QEMU writes before the pages."""
    early = made.Section("0000:00:02.0/virtio-mem-device-early", bytes(50), "early")
    start = made.opening(made.START, 2, "ram") + made.blocks(mem=made.PAGE) + made.CHUNK_END
    end = struct.pack(">BI", made.END, 2) + made.page() + made.CHUNK_END + made.footer(2)
    whole = made.header() + start + made.footer(2) + made.full(early, 9) + end + made.full(NET, 10)
    assert len(read(whole + made.description([early.described(), NET.described()])).devices) == 1


# --- devices before the memory, from a pipe ---

MUCH = made.page() * (2 * MAX_DESCRIPTION // made.PAGE + 1)
"""More memory than is held of a pipe."""


def _early(*early: made.Section, ram: bytes = MUCH, late: made.Section = NET) -> bytes:
    """A stream with these sections before the memory."""
    sections = b"".join(made.full(each, 3 + at) for at, each in enumerate(early))
    described = made.description([*(each.described() for each in early), late.described()])
    memory = made.ram_sections(made.blocks(**{"pc.ram": made.PAGE}), ram, b"")
    return made.header() + sections + memory + made.full(late, 40) + described


@pytest.mark.parametrize("body", [b"", b"e" * 24, bytes(1 << 20), b"\x7e" * 100])
def test_sections_before_the_memory_are_passed_by(body: bytes) -> None:
    early = [
        made.Section("0000:00:05.0/virtio-mem-device-early", body, "virtio-mem-device-early"),
        made.Section("0000:00:06.0/virtio-mem-device-early", b"x", "virtio-mem-device-early"),
    ]
    for read_it in (read_file, read_pipe):
        assert len(read_it(_early(*early)).devices) == 1


def test_a_machine_with_virtio_mem(read: Any) -> None:
    (found,) = read(case("early_section_before_memory.stream.xz")).devices
    assert (found.device, found.problems) == ("0000:00:03.0", ())
    assert found.state.vlans == ()


FORGED_FOOTER = made.footer(3)


@pytest.mark.parametrize(
    "body",
    [
        FORGED_FOOTER,
        b"guest" + FORGED_FOOTER + b"guest",
        FORGED_FOOTER + made.full(made.Section("a", b"", "a"), 4),
        FORGED_FOOTER + made.ram_sections(b"", b"") + made.full(NET, 9) + bytes([made.EOF]),
    ],
)
def test_what_a_guest_can_make_look_like_a_footer_is_not_believed(body: bytes) -> None:
    early = made.Section("0000:00:05.0/virtio-mem-device-early", body, "virtio-mem-device-early")
    assert len(read_file(_early(early)).devices) == 1
    assert "so read it from a file" in _refusal(read_pipe, _early(early))


def test_a_virtio_net_device_before_the_memory_is_not_passed_by() -> None:
    late = made.Net().section("0000:00:04.0/virtio-net")
    assert len(read_file(_early(NET, late=late)).devices) == 2
    assert "so read it from a file" in _refusal(read_pipe, _early(NET, late=late))


def test_a_section_before_the_memory_that_has_no_end() -> None:
    early = made.opening(made.FULL, 3, "early") + bytes(1 << 25)
    assert "expected the section's footer within 2097152 bytes" in _refusal(
        read_pipe, made.header() + early
    )


def test_sections_before_the_memory_without_end_are_refused() -> None:
    early = [made.Section(f"early{at}", b"", "early") for at in range(300)]
    assert "expected at most 256 sections before the memory" in _refusal(read_pipe, _early(*early))


def test_the_uuid_and_commands_are_passed_over(read: Any) -> None:
    uuid = made.subsection("configuration/uuid", bytes(16))
    command = struct.pack(">BHH", made.COMMAND, 3, 4) + b"ping"
    memory = made.ram_sections(made.blocks(mem=made.PAGE), b"")
    assert len(read(made.stream(NET, configuration=[uuid], ram=command + memory)).devices) == 1


def _capabilities(*names: str) -> bytes:
    body = struct.pack(">I", len(names)) + b"".join(map(made.named, names))
    return made.subsection("configuration/capabilities", body)


# --- where it stops ---


def _refusal(read: Any, data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        read(data)
    return str(caught.value)


GOOD = made.stream(NET)
NO_DEVICES = made.description([])
COMPRESSED = struct.pack(">Q", 0x120)
RAM_AT = len(made.header())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "at byte 0, in the header: expected 4 bytes of the magic, got 0"),
        (b"PNG" + GOOD[3:], "at byte 0, in the header: expected b'QEVM'"),
        (GOOD[:4] + struct.pack(">I", 4) + GOOD[8:], "at byte 4, in the header: expected version"),
        (made.header() + b"\x77", f"at byte {RAM_AT}, in the run of sections: expected a section"),
        (made.header("\x07bell"), "in the configuration: expected a machine's name, got 07"),
        (
            made.header("pc", made.subsection("configuration/novel", b"")),
            "expected a known part of the configuration, got 'configuration/novel'",
        ),
        (made.header("pc", _capabilities("novel")), "expected known capabilities, got novel"),
        (
            made.header("pc", made.subsection("configuration/target-page-bits", bytes(4))),
            "expected 10 to 16 page bits, got 0",
        ),
        (
            made.header() + made.opening(made.START, 3, "block"),
            "in section 3 (block): expected memory as the only section that goes on, got 'block'",
        ),
        (
            made.header() + struct.pack(">BI", made.PART, 5),
            "in section 5 (ram): expected a section that has begun",
        ),
        (
            made.stream(NET, ram=made.ram_sections(struct.pack(">Q", 0x80))),
            "in section 2 (ram): expected a known kind of RAM chunk, got flags 0x80",
        ),
        (
            made.stream(NET, ram=made.ram_sections(struct.pack(">Q", 0x0))),
            "expected a known kind of RAM chunk, got flags 0x0",
        ),
        (
            made.stream(NET, ram=made.ram_sections(COMPRESSED + struct.pack(">I", 8193))),
            "in section 2 (ram): expected a compressed page, got 8193 bytes",
        ),
        (
            made.header()[:9] + struct.pack(">I", 256) + bytes(1 << 20),
            "in the configuration: expected a machine's name, got one of 256 bytes",
        ),
        (
            made.header("pc", made.subsection("configuration/capabilities", b"\0\0\0\x41")),
            "in the configuration: expected some capabilities, got 65",
        ),
        (
            made.header() + bytes([made.EOF, made.DESCRIPTION]) + bytes(4) + NO_DEVICES,
            "in the end: expected the description's length",
        ),
        (
            made.header() + bytes([made.EOF, made.START]) + bytes(4) + NO_DEVICES,
            "in the end: expected the description 0x6, got 0x1",
        ),
        (
            made.stream(
                NET, ram=made.ram_sections(struct.pack(">Q", 0x1004) + b"\1a" + b"\xff" * 8)
            ),
            "expected a block of at most 4096 bytes",
        ),
        (
            made.stream(NET, ram=made.ram_sections(b"").replace(made.footer(2), made.footer(3))),
            "expected the section's number 0x2, got 0x3",
        ),
    ],
)
def test_says_where_it_stopped_and_why(read: Any, data: bytes, words: str) -> None:
    assert words in _refusal(read, data)


def test_a_length_that_is_not_the_sections_is_noticed_at_its_footer(read: Any) -> None:
    wrong = NET.described()
    wrong["fields"][0]["size"] -= 1
    whole = made.header() + made.full(NET, 10) + made.description([wrong])
    assert "in section 10 (0000:00:03.0/virtio-net): expected the section's footer" in _refusal(
        read, whole
    )


def test_a_section_that_is_not_described(read: Any) -> None:
    whole = made.header() + made.full(NET, 10) + made.description([])
    assert "expected a section that the description has" in _refusal(read, whole)


@pytest.mark.parametrize("size", [len(NET.body) + 1, 1 << 20, 1 << 39])
def test_a_forged_length_is_not_believed(read: Any, size: int) -> None:
    wrong = NET.described()
    wrong["fields"][0]["size"] = size
    whole = made.header() + made.full(NET, 10) + made.description([wrong])
    said = _refusal(read, whole)
    assert "before the end" in said or "expected the section's footer" in said


def test_bytes_behind_the_end(read: Any) -> None:
    assert "goes on behind it" in _refusal(read, GOOD + b"\0")


def test_no_description(read: Any) -> None:
    whole = made.header() + made.full(NET, 10) + bytes([made.EOF])
    assert "suppress-vmdesc" in _refusal(read, whole)


def test_a_description_whose_length_is_printable(read: Any) -> None:
    """Its length is 0x2020 bytes, so that only the mark before it is a control byte."""
    described = NET.described()
    described["padding"] = ""
    bare = made.description([described])
    described["padding"] = "x" * (0x2020 - (len(bare) - 6))
    description = made.description([described])
    assert description[2:6] == b"\0\0\x20\x20"
    assert len(read(made.header() + made.full(NET, 10) + description).devices) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b'{"devices": 7}',
        b'{"devices": [7]}',
        b'{"devices": [{}]}',
        b'{"devices": [{"name": [], "instance_id": 0, "fields": []}]}',
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": [{"size": "9"}]}]}',
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": [{"size": 1e99}]}]}',
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": [{"size": -9}]}]}',
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": [], "subsections": 3}]}',
        b"[" * 100_000,
        b'{"devices":' * 50_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{}",
    ],
)
def test_a_description_that_makes_no_sense(read: Any, text: bytes) -> None:
    end = bytes([made.EOF, made.DESCRIPTION]) + struct.pack(">I", len(text)) + text
    assert _refusal(read, made.header() + made.full(NET, 10) + end)


def test_a_pipe_is_not_held_without_end() -> None:
    late = made.ram_sections(b"", b"") + made.full(made.Section("a", b"", "a"), 3)
    whole = made.header() + late + bytes(2 * MAX_DESCRIPTION + 1)
    assert "expected at most 16777216 bytes of devices" in _refusal(read_pipe, whole)


def test_a_file_with_a_long_description_is_refused() -> None:
    long = made.Section("x" * 200, b"", "y" * 200)
    described = [{**long.described(), "instance_id": at} for at in range(20_000)]
    whole = made.header() + made.full(NET, 10) + made.description([*described, NET.described()])
    assert len(whole) > MAX_DESCRIPTION
    assert "expected a description" in _refusal(read_file, whole)
