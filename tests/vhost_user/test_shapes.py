"""The form of every request by a list of the page's: all other sizes and counts are refused."""

import struct
from collections.abc import Container

import pytest

from tests.vhost_user import front_end as page
from vdpad.vhost_user.faults import BadMessage
from vdpad.vhost_user.messages import FrontEndRequest, Header
from vdpad.vhost_user.shapes import MAX_PAYLOAD, SHAPES, check_header, check_message

U64, VRING, NOTHING = (8,), (8,), (0,)
CONFIG = range(12, 12 + 256 + 1)

# Sizes, and how many descriptors.
FORMS: dict[str, tuple[Container[int], Container[int]]] = {
    "GET_FEATURES": (NOTHING, (0,)),
    "SET_FEATURES": (U64, (0,)),
    "SET_OWNER": (NOTHING, (0,)),
    "RESET_OWNER": (NOTHING, (0,)),
    "SET_MEM_TABLE": (range(8, 8 + 8 * 32 + 1), (0,)),  # of a table of none
    "SET_LOG_BASE": ((8, 16), (0, 1)),
    "SET_VRING_NUM": (VRING, (0,)),
    "SET_VRING_ADDR": ((40,), (0,)),
    "SET_VRING_BASE": (VRING, (0,)),
    "GET_VRING_BASE": (VRING, (0,)),
    "SET_VRING_KICK": (U64, (1,)),  # of a payload of zeros: bit 8 is not set
    "SET_VRING_CALL": (U64, (1,)),
    "SET_VRING_ERR": (U64, (1,)),
    "GET_PROTOCOL_FEATURES": (NOTHING, (0,)),
    "SET_PROTOCOL_FEATURES": (U64, (0,)),
    "GET_QUEUE_NUM": (NOTHING, (0,)),
    "SET_VRING_ENABLE": (VRING, (0,)),
    "SEND_RARP": (U64, (0,)),
    "NET_SET_MTU": (U64, (0,)),
    "SET_BACKEND_REQ_FD": (NOTHING, (1,)),
    "GET_CONFIG": (CONFIG, (0,)),
    "SET_CONFIG": (CONFIG, (0,)),
    "GET_INFLIGHT_FD": ((20, 24), (0,)),
    "SET_INFLIGHT_FD": ((20, 24), (0, 1)),
    "RESET_DEVICE": (NOTHING, (0,)),
    "GET_MAX_MEM_SLOTS": (NOTHING, (0,)),
    "ADD_MEM_REG": ((40,), (1,)),
    "REM_MEM_REG": ((40,), (0, 1)),
    "SET_STATUS": (U64, (0,)),
    "GET_STATUS": (NOTHING, (0,)),
    "SET_DEVICE_STATE_FD": ((8,), (1,)),
    "CHECK_DEVICE_STATE": (NOTHING, (0,)),
}
SIZES = [*range(300), MAX_PAYLOAD, MAX_PAYLOAD + 1, 1 << 31, (1 << 32) - 1]


def _accepts_header(header: Header) -> bool:
    try:
        check_header(header)
    except BadMessage:
        return False
    return True


def _accepts(request: int, payload: bytes, descriptors: int) -> bool:
    try:
        check_message(request, payload, descriptors)
    except BadMessage:
        return False
    return True


def test_every_request_has_a_form() -> None:
    assert set(FORMS) == set(FrontEndRequest.__members__)
    assert set(SHAPES) == set(FrontEndRequest)


@pytest.mark.parametrize("name", FORMS)
def test_sizes(name: str) -> None:
    sizes, _ = FORMS[name]
    request = FrontEndRequest[name]
    for size in SIZES:
        assert _accepts_header(Header(request, 1, size)) == (size in sizes), size


@pytest.mark.parametrize("name", FORMS)
def test_descriptors(name: str) -> None:
    sizes, counts = FORMS[name]
    payload = bytes(min(size for size in SIZES if size in sizes))
    for count in (0, 1, 2, 8, 9, 253):
        accepted = _accepts(FrontEndRequest[name], payload, count)
        assert accepted == (count in counts), count


@pytest.mark.parametrize("number", range(10))
def test_a_memory_table_has_as_many_regions_and_files_as_it_says(number: int) -> None:
    payload = page.table(*[page.region(0, 0, 0, 0)] * number)
    assert _accepts_header(Header(page.SET_MEM_TABLE, 1, len(payload))) == (number <= 8)
    for count in range(10):
        assert _accepts(page.SET_MEM_TABLE, payload, count) == (count == number)
    for lie in (number + 1, number + (1 << 27), (1 << 32) - 1):
        assert not _accepts(page.SET_MEM_TABLE, struct.pack("=II", lie, 0) + payload[8:], number)


@pytest.mark.parametrize("request_number", [page.GET_CONFIG, page.SET_CONFIG])
def test_config_space_is_as_long_as_it_says(request_number: int) -> None:
    for said in (0, 1, 7, 9, 1 << 31, (1 << 32) - 1):
        payload = struct.pack("=III", 0, said, 0) + bytes(8)
        assert not _accepts(request_number, payload, 0)
    assert _accepts(request_number, page.config(0, bytes(8)), 0)


@pytest.mark.parametrize(
    "request_number", [page.SET_VRING_KICK, page.SET_VRING_CALL, page.SET_VRING_ERR]
)
def test_an_eventfd_is_there_or_said_not_to_be(request_number: int) -> None:
    assert _accepts(request_number, page.u64(3), 1)
    assert not _accepts(request_number, page.u64(3), 0)
    assert _accepts(request_number, page.u64(3 | page.NO_FD), 0)
    assert not _accepts(request_number, page.u64(3 | page.NO_FD), 1)


@pytest.mark.parametrize("flags", [0, 2, 3, 5, 4, 0xD])
def test_what_is_of_another_version_or_a_reply_is_no_request(flags: int) -> None:
    assert not _accepts_header(Header(page.GET_FEATURES, flags, 0))


def test_requests_that_nobody_knows_are_read_up_to_a_limit() -> None:
    for unknown in (0, page.SET_LOG_FD, page.IOTLB_MSG, page.GET_SHARED_OBJECT, 1 << 31):
        assert _accepts_header(Header(unknown, 1, MAX_PAYLOAD))
        assert not _accepts_header(Header(unknown, 1, MAX_PAYLOAD + 1))
        assert _accepts(unknown, bytes(3), 253)
