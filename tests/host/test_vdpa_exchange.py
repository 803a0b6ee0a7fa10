"""The netlink codec: messages recorded and made, and a conversation with a kernel of ours."""

import asyncio
import io
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.marshal import Marshal

from tests.host import kernel
from vdpad.host import vdpa_exchange
from vdpad.host.vdpa_exchange import (
    Attributes,
    Odd,
    VdpaCommand,
    VdpaMessage,
    VdpaSocket,
    fault_of,
    pull_reply,
    push_request,
    serve,
)

# --- requests ---


def test_a_request_is_built_as_the_kernel_reads_it() -> None:
    request = push_request(VdpaCommand.DEV_VSTATS_GET, {"DEV_NAME": "sim0", "DEV_QUEUE_INDEX": 3})
    request["header"]["type"] = kernel.FAMILY
    request.encode()
    body = bytes([7, 1, 0, 0]) + kernel.text(4, "sim0") + kernel.u32(17, 3)
    assert bytes(request.data[16:]) == body
    assert struct.unpack_from("=IH", request.data) == (16 + len(body), kernel.FAMILY)


def test_a_string_is_sent_with_its_nul() -> None:
    request = push_request(VdpaCommand.DEV_GET, {"DEV_NAME": "vdpa"})
    request.encode()
    assert bytes(request.data[20:]) == b"\x09\x00\x04\x00vdpa\0\0\0\0"


def test_a_new_device_s_settings_are_sent_as_the_kernel_reads_them() -> None:
    settings: dict[str, int | str] = {
        "DEV_NAME": "a",
        "DEV_FEATURES": 1 << 63 | 5,
        "DEV_NET_CFG_MACADDR": "52:54:00:00:00:07",
        "DEV_NET_CFG_MAX_VQP": 4,
        "DEV_NET_CFG_MTU": 9000,
    }
    request = push_request(VdpaCommand.DEV_NEW, settings)
    request.encode()
    expected = (
        *(kernel.text(4, "a"), kernel.u64(20, 1 << 63 | 5)),
        *(kernel.attribute(10, bytes.fromhex("525400000007")), kernel.u16(12, 4)),
        kernel.u16(13, 9000),
    )
    assert bytes(request.data[16:]) == bytes([3, 1, 0, 0]) + b"".join(expected)


# --- replies ---


def _pulled(data: bytes) -> list[Attributes]:
    """What comes of it, by the way that all that is received goes."""
    marshal = Marshal()
    marshal.msg_map[kernel.FAMILY] = VdpaMessage
    return [pull_reply(each) for each in marshal.parse(data) if isinstance(each, VdpaMessage)]


def test_recorded_replies_are_read() -> None:
    assert _pulled(kernel.MGMTDEV_GET + kernel.DEV_GET + kernel.DEV_CONFIG_GET) == [
        [
            ("MGMTDEV_DEV_NAME", "vdpasim_net"),
            ("MGMTDEV_SUPPORTED_CLASSES", 2),
            ("DEV_MGMTDEV_MAX_VQS", 3),
            ("DEV_SUPPORTED_FEATURES", 0x308830028),
        ],
        [
            ("MGMTDEV_DEV_NAME", "vdpasim_net"),
            ("DEV_NAME", "sim0"),
            ("DEV_ID", 1),
            ("DEV_VENDOR_ID", 0),
            ("DEV_MAX_VQS", 3),
            ("DEV_MAX_VQ_SIZE", 256),
            ("DEV_MIN_VQ_SIZE", 1),
        ],
        [
            ("DEV_NAME", "sim0"),
            ("DEV_ID", 1),
            ("DEV_FEATURES", 0x308830028),
            ("DEV_NET_CFG_MTU", 1500),
            ("DEV_NET_CFG_MACADDR", "52:54:00:00:00:01"),
            ("DEV_NET_STATUS", 1),
        ],
    ]


@pytest.mark.parametrize("number", [3, 14, 16, 19, 20])
def test_the_padding_before_64_bits_is_left_out(number: int) -> None:
    wide = kernel.message(kernel.u64(number, 1 << 63, padded=True) + kernel.u16(13, 1500))
    (attributes,) = _pulled(wide)
    assert [value for _, value in attributes] == [1 << 63, 1500]


@pytest.mark.parametrize("number", [21, 22, 36, 37, 0x3FFF])
def test_attributes_past_20_are_left_out(number: int) -> None:
    reply = kernel.message(kernel.u64(number, 5) + kernel.text(4, "sim0"))
    assert _pulled(reply) == [[("DEV_NAME", "sim0")]]


def test_attributes_keep_their_order_and_number() -> None:
    pairs = [kernel.text(18, "a"), kernel.u64(19, 1), kernel.text(18, "b"), kernel.u64(19, 2)]
    assert _pulled(kernel.message(b"".join(pairs))) == [
        [
            ("DEV_VENDOR_ATTR_NAME", "a"),
            ("DEV_VENDOR_ATTR_VALUE", 1),
            ("DEV_VENDOR_ATTR_NAME", "b"),
            ("DEV_VENDOR_ATTR_VALUE", 2),
        ]
    ]


def test_a_name_that_is_not_utf_8_is_shown_as_it_can_be() -> None:
    assert _pulled(kernel.message(kernel.attribute(4, b"\xff0\0"))) == [[("DEV_NAME", "\\xff0")]]


@pytest.mark.parametrize(
    ("number", "sizes"),
    [(5, (0, 1, 3, 5, 8)), (8, (0, 1, 3, 4)), (20, (0, 4, 7, 9)), (10, (0, 4, 5, 7))],
    ids=["u32", "u16", "u64", "MAC address"],
)
def test_a_value_of_another_length_is_odd(number: int, sizes: tuple[int, ...]) -> None:
    behind = kernel.text(4, "what a number must not be read from")
    for size in sizes:
        with pytest.raises(Odd, match=f"of {size} bytes"):
            _pulled(kernel.message(kernel.attribute(number, bytes(size)) + behind))


def test_an_attribute_that_ends_after_its_message_is_odd() -> None:
    with pytest.raises(Odd):
        _pulled(kernel.message(struct.pack("=HH", 40, 4) + b"sim0"))


def test_an_attribute_shorter_than_its_header_is_odd() -> None:
    with pytest.raises(Odd):
        _pulled(kernel.message(struct.pack("=HH", 2, 4)))


def test_a_message_that_was_not_taken_apart_is_odd() -> None:
    with pytest.raises(Odd, match="ends before"):
        pull_reply(VdpaMessage(kernel.DEV_GET))


@pytest.mark.parametrize("name", kernel.ALL)
@given(data=st.data())
def test_a_damaged_reply_is_odd_or_still_makes_sense(name: str, data: st.DataObject) -> None:
    damaged = bytearray(kernel.ALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(16, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(20, len(damaged)))
    struct.pack_into("=I", damaged, 0, data.draw(st.sampled_from([cut, len(damaged)])))
    try:
        replies = _pulled(bytes(damaged[:cut]))
    except Odd:
        return
    assert all(type(value) in (int, str) for reply in replies for _, value in reply)


# --- a conversation ---


class _Kernel(socket.socket):
    """Our end of a conversation with a kernel, which answers what a test says."""

    def bind(self, _address: Any) -> None:
        """A netlink address means nothing here."""

    def sendto(self, data: Any, *_address: Any) -> int:
        return self.send(data)


Answers = Callable[[int, int], list[bytes]]
"""From a request's command and its sequence number to datagrams."""


def _converse(monkeypatch: pytest.MonkeyPatch, lines: list[Any], answers: Answers) -> list[Any]:
    """What the process prints when it reads these requests and the kernel answers so."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        end = _Kernel(ours.family, ours.type, fileno=ours.detach())
        end.setblocking(False)
        monkeypatch.setattr(
            vdpa_exchange, "VdpaSocket", lambda **options: VdpaSocket(use_socket=end, **options)
        )
        thread = threading.Thread(target=_answer, args=(theirs, answers))
        thread.start()
        printed = io.StringIO()
        requests = io.StringIO("".join(json.dumps(line) + "\n" for line in lines))
        asyncio.run(serve(requests, printed))
        end.close()
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()
    return [json.loads(line) for line in printed.getvalue().splitlines()]


def _answer(kernel_end: socket.socket, answers: Answers) -> None:
    while data := kernel_end.recv(4096):
        _, type_, _, sequence, _ = struct.unpack_from("=IHHII", data)
        datagrams = [kernel.family(sequence)] if type_ == 16 else answers(data[16], sequence)
        for each in datagrams:
            kernel_end.send(each)


def test_a_device_and_then_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(command: int, sequence: int) -> list[bytes]:
        assert command == VdpaCommand.DEV_GET
        one = kernel.with_sequence(kernel.DEV_GET, sequence)
        if len(asked) == 0:
            asked.append(command)
            return [one, kernel.error(0, sequence)]
        multi = kernel.message(kernel.text(4, "b"), flags=kernel.MULTI, sequence=sequence)
        return [multi + multi, multi, kernel.done(sequence)]

    asked: list[int] = []
    lines = [["DEV_GET", {"DEV_NAME": "sim0"}], ["DEV_GET", {}]]
    one, three = _converse(monkeypatch, lines, answers)
    assert ["DEV_NAME", "sim0"] in one["replies"][0]
    assert three == {"replies": [[["DEV_NAME", "b"]]] * 3}


def test_what_is_done_is_only_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(command: int, sequence: int) -> list[bytes]:
        assert command == VdpaCommand.DEV_DEL
        return [kernel.error(0, sequence)]

    lines = [["DEV_DEL", {"DEV_NAME": "sim0"}]]
    assert _converse(monkeypatch, lines, answers) == [{"replies": []}]


def test_a_refusal_comes_with_the_kernel_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_command: int, sequence: int) -> list[bytes]:
        return [kernel.with_sequence(kernel.NO_SUCH_DEVICE, sequence)]

    refused = _converse(monkeypatch, [["DEV_CONFIG_GET", {"DEV_NAME": "nope"}]] * 2, answers)
    assert refused == [{"errno": 19, "words": "vdpa: device not found"}] * 2


def test_a_refusal_without_words_has_the_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_command: int, sequence: int) -> list[bytes]:
        return [kernel.error(1, sequence)]

    refused = _converse(monkeypatch, [["DEV_GET", {"DEV_NAME": "sim0"}]], answers)
    assert refused == [{"errno": 1, "words": "Operation not permitted"}]


def test_an_odd_reply_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(command: int, sequence: int) -> list[bytes]:
        if command == VdpaCommand.DEV_GET:
            return [kernel.message(kernel.u16(5, 1), sequence=sequence)]
        return [kernel.with_sequence(kernel.DEV_CONFIG_GET, sequence)]

    lines = [["DEV_GET", {"DEV_NAME": "sim0"}], ["DEV_CONFIG_GET", {"DEV_NAME": "sim0"}]]
    odd, config = _converse(monkeypatch, lines, answers)
    assert odd == {"odd": "DEV_ID of 2 bytes"}
    assert len(config["replies"]) == 1


@pytest.mark.parametrize("size", [16, 18])
def test_a_reply_that_is_only_a_header_is_odd(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_command: int, sequence: int) -> list[bytes]:
        header = struct.pack("=IHHII", size, kernel.FAMILY, 0, sequence, 0xB9)
        return [header.ljust(size, b"\0")]

    (odd,) = _converse(monkeypatch, [["DEV_GET", {"DEV_NAME": "sim0"}]], answers)
    assert "error" in odd["odd"]


def test_a_reply_that_ends_before_it_says_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_command: int, sequence: int) -> list[bytes]:
        return [kernel.with_sequence(kernel.DEV_GET, sequence)[:-4]]

    lines = [["DEV_GET", {"DEV_NAME": "sim0"}]]
    assert _converse(monkeypatch, lines, answers) == [{"replies": []}]


def test_what_cannot_be_sent_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [["DEV_VSTATS_GET", {"DEV_NAME": "sim0", "DEV_QUEUE_INDEX": 1 << 40}]]
    (odd,) = _converse(monkeypatch, lines, lambda _command, _sequence: [])
    assert "error" in odd["odd"]


def test_a_kernel_without_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "family", lambda sequence: kernel.error(2, sequence))
    lines: list[Any] = [["DEV_GET", {}]]
    (fault,) = _converse(monkeypatch, lines, lambda _command, _sequence: [])
    assert fault["errno"] == 2


def test_a_socket_that_cannot_be_had_is_told() -> None:
    error = OSError(97, "Address family not supported by protocol")
    assert fault_of(error) == {"errno": 97, "words": "Address family not supported by protocol"}
