"""What a message of each request looks like: its size, its descriptors, and how it is answered.

All of a message's form is checked here, before anything looks at what it says: its size by the
header, before the payload is read; then the payload against its own counts, and the descriptors
against the payload. What is not in the table is read, up to MAX_PAYLOAD, and refused by its number.

Model: rust-vmm's check_request_size and check_attached_files.
Source: QEMU's docs/interop/vhost-user.rst, "Front-end message types".
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from vdpad.vhost_user import messages, payloads
from vdpad.vhost_user.faults import BadMessage
from vdpad.vhost_user.messages import FrontEndRequest, Header, ProtocolFeature, request_name

# No message that is known comes near it. Stops a size that is a lie from taking our memory.
MAX_PAYLOAD = 4096

# SET_DEVICE_STATE_FD's reply: an error in bits 0 to 7, and bit 8 for "no descriptor".
STATE_TRANSFER_ACCEPTED = 1 << 8
_STATE_TRANSFER_FAILED = STATE_TRANSFER_ACCEPTED | 1
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """How messages of one request look."""

    sizes: Container[int] = (0,)
    """Bytes that the payload may have."""
    whole: Callable[[bytes], int] | None = None
    """How many it must have by what it says itself."""
    descriptors: Callable[[bytes], Container[int]] = lambda _payload: (0,)
    """How many may ride on it."""
    needs: ProtocolFeature | None = None
    """Without it, it is not served."""
    replies: bool = False
    """Whether it has a reply of its own, NEED_REPLY or not."""
    replies_with: ProtocolFeature | None = None
    """It has one for who has acknowledged this."""
    refusal: Callable[[bytes], bytes] | None = None
    """That reply where it is not served; None where the protocol has no word for it."""


def _one(_payload: bytes) -> Container[int]:
    return (1,)


def _at_most_one(_payload: bytes) -> Container[int]:
    return (0, 1)


def _by_flag(payload: bytes) -> Container[int]:
    return (int(payloads.pull_vring_descriptor(payload).is_attached),)


def _by_number(payload: bytes) -> Container[int]:
    return (len(payloads.pull_memory_table(payload)),)


def _failed(_payload: bytes) -> bytes:
    return payloads.push_u64(_FAILED)


def _no_base(_payload: bytes) -> bytes:
    return b""


def _no_transfer(_payload: bytes) -> bytes:
    return payloads.push_u64(_STATE_TRANSFER_FAILED)


def _no_config(payload: bytes) -> bytes:
    return payloads.push_config(payloads.pull_config(payload)._replace(data=b""))


_U64 = (payloads.U64_SIZE,)
_REGION = (payloads.MEMORY_REGION_SIZE,)
_CONFIG = range(payloads.CONFIG_HEADER_SIZE, payloads.CONFIG_HEADER_SIZE + payloads.MAX_CONFIG + 1)
_TABLE = range(8, 8 + 32 * payloads.MAX_TABLE_REGIONS + 1)
_VRING_STATE = Shape(sizes=(payloads.VRING_STATE_SIZE,))
_EVENTFD = Shape(sizes=_U64, descriptors=_by_flag)
_SLOTS = ProtocolFeature.CONFIGURE_MEM_SLOTS
_MOVING = ProtocolFeature.DEVICE_STATE

SHAPES: Mapping[int, Shape] = {
    FrontEndRequest.GET_FEATURES: Shape(replies=True),
    FrontEndRequest.SET_FEATURES: Shape(sizes=_U64),
    FrontEndRequest.SET_OWNER: Shape(),
    FrontEndRequest.RESET_OWNER: Shape(),
    FrontEndRequest.SET_MEM_TABLE: Shape(
        sizes=_TABLE, whole=payloads.memory_table_size, descriptors=_by_number
    ),
    # Who has not taken LOG_SHMFD waits for no reply and sends a bare number.
    FrontEndRequest.SET_LOG_BASE: Shape(
        sizes=(payloads.U64_SIZE, payloads.LOG_AREA_SIZE),
        descriptors=_at_most_one,
        needs=ProtocolFeature.LOG_SHMFD,
        replies_with=ProtocolFeature.LOG_SHMFD,
        refusal=_failed,
    ),
    FrontEndRequest.SET_VRING_NUM: _VRING_STATE,
    FrontEndRequest.SET_VRING_ADDR: Shape(sizes=(payloads.VRING_ADDRESSES_SIZE,)),
    FrontEndRequest.SET_VRING_BASE: _VRING_STATE,
    FrontEndRequest.GET_VRING_BASE: Shape(
        sizes=(payloads.VRING_STATE_SIZE,), replies=True, refusal=_no_base
    ),
    FrontEndRequest.SET_VRING_KICK: _EVENTFD,
    FrontEndRequest.SET_VRING_CALL: _EVENTFD,
    FrontEndRequest.SET_VRING_ERR: _EVENTFD,
    FrontEndRequest.GET_PROTOCOL_FEATURES: Shape(replies=True),
    FrontEndRequest.SET_PROTOCOL_FEATURES: Shape(sizes=_U64),
    # MQ need be offered only: it "is present in queried protocol features".
    FrontEndRequest.GET_QUEUE_NUM: Shape(replies=True),
    FrontEndRequest.SET_VRING_ENABLE: _VRING_STATE,
    FrontEndRequest.SEND_RARP: Shape(sizes=_U64, needs=ProtocolFeature.RARP),
    FrontEndRequest.NET_SET_MTU: Shape(sizes=_U64, needs=ProtocolFeature.NET_MTU),
    FrontEndRequest.SET_BACKEND_REQ_FD: Shape(descriptors=_one, needs=ProtocolFeature.BACKEND_REQ),
    FrontEndRequest.GET_CONFIG: Shape(
        sizes=_CONFIG,
        whole=payloads.config_size,
        needs=ProtocolFeature.CONFIG,
        replies=True,
        refusal=_no_config,
    ),
    FrontEndRequest.SET_CONFIG: Shape(
        sizes=_CONFIG, whole=payloads.config_size, needs=ProtocolFeature.CONFIG
    ),
    # A reply of an area of no bytes would say that there is nothing in flight: too little known.
    FrontEndRequest.GET_INFLIGHT_FD: Shape(
        sizes=payloads.INFLIGHT_SIZES, needs=ProtocolFeature.INFLIGHT_SHMFD, replies=True
    ),
    FrontEndRequest.SET_INFLIGHT_FD: Shape(
        sizes=payloads.INFLIGHT_SIZES,
        descriptors=_at_most_one,
        needs=ProtocolFeature.INFLIGHT_SHMFD,
    ),
    FrontEndRequest.RESET_DEVICE: Shape(needs=ProtocolFeature.RESET_DEVICE),
    FrontEndRequest.GET_MAX_MEM_SLOTS: Shape(needs=_SLOTS, replies=True),
    FrontEndRequest.ADD_MEM_REG: Shape(sizes=_REGION, descriptors=_one, needs=_SLOTS),
    # Front ends that send the file along are known; it is closed and not looked at.
    FrontEndRequest.REM_MEM_REG: Shape(sizes=_REGION, descriptors=_at_most_one, needs=_SLOTS),
    FrontEndRequest.SET_STATUS: Shape(sizes=_U64, needs=ProtocolFeature.STATUS),
    FrontEndRequest.GET_STATUS: Shape(needs=ProtocolFeature.STATUS, replies=True),
    FrontEndRequest.SET_DEVICE_STATE_FD: Shape(
        sizes=(payloads.STATE_TRANSFER_SIZE,),
        descriptors=_one,
        needs=_MOVING,
        replies=True,
        refusal=_no_transfer,
    ),
    FrontEndRequest.CHECK_DEVICE_STATE: Shape(needs=_MOVING, replies=True, refusal=_failed),
}


def check_header(header: Header) -> None:
    """Refuses a header behind which no payload should be read.

    Raises:
        BadMessage: of another version, a reply, or of a size that such a request never has.
    """
    name = request_name(header.request)
    if header.flags & messages.VERSION_MASK != messages.VERSION or header.flags & messages.REPLY:
        raise BadMessage(
            f"{name}: expected a request of version {messages.VERSION}, got flags "
            f"{header.flags:#x}; speak vhost-user to this socket"
        )
    shape = SHAPES.get(header.request)
    sizes = range(MAX_PAYLOAD + 1) if shape is None else shape.sizes
    if header.size not in sizes:
        raise BadMessage(f"{name}: expected {_in_words(sizes)} bytes, got {header.size}")


def check_message(request: int, payload: bytes, descriptors: int) -> None:
    """Refuses a payload that is not as long as it says, or has other descriptors than it says.

    Args:
        request: whose header was checked.
        payload: as long as the header says.
        descriptors: how many came with it.

    Raises:
        BadMessage: it is so.
    """
    shape = SHAPES.get(request)
    if shape is None:
        return
    name = request_name(request)
    if shape.whole is not None and shape.whole(payload) != len(payload):
        raise BadMessage(
            f"{name}: expected {shape.whole(payload)} bytes by its own count, got {len(payload)}"
        )
    if descriptors not in shape.descriptors(payload):
        raise BadMessage(
            f"{name}: expected {_in_words(shape.descriptors(payload))} descriptors, "
            f"got {descriptors}"
        )


def _in_words(numbers: Container[int]) -> str:
    if isinstance(numbers, range):
        return f"{numbers[0]} to {numbers[-1]}"
    assert isinstance(numbers, tuple)
    return " or ".join(map(str, numbers))
