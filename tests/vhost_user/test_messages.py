"""The header and numbers of messages, against those of the tests' own front end and of the page."""

import struct

import pytest

from tests.vhost_user import front_end as page
from vdpad.vhost_user import messages
from vdpad.vhost_user.messages import BackEndRequest, FrontEndRequest, Header, ProtocolFeature

# Byte by byte, on a machine that is little-endian.
HEADER, HEADER_BYTES = Header(37, 9, 40), bytes.fromhex("250000000900000028000000")


def test_the_header_by_the_page() -> None:
    assert messages.push_header(HEADER) == HEADER_BYTES
    assert messages.pull_header(HEADER_BYTES) == HEADER


def test_a_header_cut_at_every_length() -> None:
    for size in range(len(HEADER_BYTES)):
        with pytest.raises(struct.error):
            messages.pull_header(HEADER_BYTES[:size])


def test_requests_have_the_page_s_numbers() -> None:
    assert {name: getattr(page, name) for name in FrontEndRequest.__members__} == {
        name: int(member) for name, member in FrontEndRequest.__members__.items()
    }
    assert BackEndRequest.CONFIG_CHANGE_MSG == page.BACKEND_CONFIG_CHANGE_MSG


def test_protocol_features_have_the_page_s_bits() -> None:
    named = {
        ProtocolFeature.MQ: page.MQ,
        ProtocolFeature.LOG_SHMFD: page.LOG_SHMFD,
        ProtocolFeature.RARP: page.RARP,
        ProtocolFeature.REPLY_ACK: page.REPLY_ACK,
        ProtocolFeature.NET_MTU: page.MTU,
        ProtocolFeature.BACKEND_REQ: page.BACKEND_REQ,
        ProtocolFeature.CONFIG: page.CONFIG,
        ProtocolFeature.INFLIGHT_SHMFD: page.INFLIGHT_SHMFD,
        ProtocolFeature.RESET_DEVICE: page.RESET,
        ProtocolFeature.CONFIGURE_MEM_SLOTS: page.SLOTS,
        ProtocolFeature.STATUS: page.STATUS,
        ProtocolFeature.DEVICE_STATE: page.DEVICE_STATE,
    }
    assert all(1 << bit == mask for bit, mask in named.items())
    assert set(ProtocolFeature) - set(named) == {ProtocolFeature.BACKEND_SEND_FD}


def test_a_request_is_called_by_its_name_or_its_number() -> None:
    assert messages.request_name(37) == "ADD_MEM_REG"
    assert messages.request_name(4711) == "request 4711"
