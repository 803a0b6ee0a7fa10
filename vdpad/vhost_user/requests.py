"""The requests of a front end: which is served in which state of its session, and by what.

`_RULES` is the table. A message is held against it first, then its handler pulls the payload, has
the session do what is asked for, and pushes the reply where the request has one of its own.

Source: QEMU's docs/interop/vhost-user.rst, "Front-end message types".
"""

from collections.abc import Awaitable, Callable, Container, Mapping
from typing import NamedTuple

from vdpad.vhost_user import memory_logging, messages, payloads
from vdpad.vhost_user.channel import FrontEndMessage
from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.memory_table import MAX_REGIONS
from vdpad.vhost_user.messages import FrontEndRequest, ProtocolFeature, request_name
from vdpad.vhost_user.payloads import VringState, push_u64
from vdpad.vhost_user.session import Session, SessionState
from vdpad.vhost_user.shapes import SHAPES, STATE_TRANSFER_ACCEPTED
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.mac import format_mac

_STATUS_BITS = 0xFF
_GROUP = 1
"""Of an address's first byte: it is that of many."""


async def serve(session: Session, message: FrontEndMessage) -> bytes | None:
    """Does what a message asks for.

    Returns:
        the reply, where the request has one of its own.

    Raises:
        VdpadError: it is not served; nothing has changed, unless `GuestRegions` says so.
    """
    name = request_name(message.request)
    rule = _RULES.get(message.request)
    needs = SHAPES[message.request].needs if message.request in SHAPES else None
    if needs is not None and needs not in session.protocol_features:
        raise NotServed(f"{name}: expected {needs.name} to be acknowledged first, it is not")
    if rule is None:
        raise NotServed(f"{name}: expected a request that is served here, got another")
    if session.state not in rule.states:
        raise NotServed(f"{name}: {_WHY_NOT[session.state]}")
    return await rule.handler(session, message)


# --- what is agreed upon ---


async def _get_features(session: Session, _message: FrontEndMessage) -> bytes:
    ours = {messages.PROTOCOL_FEATURES}
    if memory_logging.is_offered(session.protocol_features):
        ours.add(messages.LOG_ALL)
    return push_u64(mask_of(session.offered | ours))


async def _set_features(session: Session, message: FrontEndMessage) -> None:
    wanted = bits_of(payloads.pull_u64(message.payload))
    logged = messages.LOG_ALL in wanted
    if logged:
        session.logging.check_wanted(
            session.protocol_features, running=session.state is SessionState.RUNNING
        )
    session.agree(
        wanted - {messages.PROTOCOL_FEATURES, messages.LOG_ALL},
        enables_rings=messages.PROTOCOL_FEATURES in wanted,
    )
    await session.logging.want(logged)


async def _get_protocol_features(session: Session, _message: FrontEndMessage) -> bytes:
    return push_u64(mask_of(session.served))


async def _set_protocol_features(session: Session, message: FrontEndMessage) -> None:
    session.agree_protocol(bits_of(payloads.pull_u64(message.payload)))


async def _do_nothing(_session: Session, _message: FrontEndMessage) -> None:
    """SET_OWNER says what a connection says; RESET_OWNER is deprecated, and to be ignored."""


async def _get_queue_num(session: Session, _message: FrontEndMessage) -> bytes:
    return push_u64(session.device.queues)


async def _set_backend_req_fd(session: Session, message: FrontEndMessage) -> None:
    await session.set_back_channel(message.attached)


# --- the device ---


async def _get_config(session: Session, message: FrontEndMessage) -> bytes:
    asked = payloads.pull_config(message.payload)
    end = asked.offset + len(asked.data)
    if end > payloads.MAX_CONFIG:
        raise NotServed(
            f"expected an end of at most {payloads.MAX_CONFIG} in the config space, got {end}"
        )
    # A front end may take a device's config space for larger than this one's.
    config = (await session.device.config()).ljust(payloads.MAX_CONFIG, b"\0")
    return payloads.push_config(asked._replace(data=config[asked.offset : end]))


async def _set_config(session: Session, message: FrontEndMessage) -> None:
    offset, flags, data = payloads.pull_config(message.payload)
    if flags not in (0, 1):
        raise NotServed(f"expected 0 (the guest's) or 1 (a migration's), got flags {flags:#x}")
    await session.device.set_config(offset, data, moving=flags == 1)


async def _get_status(session: Session, _message: FrontEndMessage) -> bytes:
    needs_reset = DeviceStatus.NEEDS_RESET if session.device.needs_reset else 0
    return push_u64(session.status | needs_reset)


async def _set_status(session: Session, message: FrontEndMessage) -> None:
    status = payloads.pull_u64(message.payload)
    if status > _STATUS_BITS:
        raise NotServed(f"expected a device status of 8 bits, got {status:#x}")
    await session.set_status(status)


async def _reset_device(session: Session, _message: FrontEndMessage) -> None:
    await session.reset()


async def _set_device_state_fd(session: Session, message: FrontEndMessage) -> bytes:
    transfer = payloads.pull_state_transfer(message.payload)
    ways = (session.device.save, session.device.load)
    if transfer.direction >= len(ways) or transfer.phase:
        raise NotServed(f"expected a direction of 0 or 1 and phase 0, got {transfer}")
    fd = message.attached.take()
    await session.transfer.begin(ways[transfer.direction], fd, session.front_end.uid)
    return push_u64(STATE_TRANSFER_ACCEPTED)


async def _check_device_state(session: Session, _message: FrontEndMessage) -> bytes:
    await session.transfer.ended()
    return push_u64(0)


async def _send_rarp(session: Session, message: FrontEndMessage) -> None:
    mac = payloads.pull_mac(message.payload)
    if mac[0] & _GROUP or not any(mac):
        raise NotServed(f"expected the address of one card, got {format_mac(mac)}")
    await session.announce(mac)


# --- memory ---


async def _set_log_base(session: Session, message: FrontEndMessage) -> bytes:
    await session.logging.set_base(message.payload, message.attached)
    return push_u64(0)


async def _get_max_mem_slots(_session: Session, _message: FrontEndMessage) -> bytes:
    return push_u64(MAX_REGIONS)


async def _add_mem_reg(session: Session, message: FrontEndMessage) -> None:
    await session.add_memory(payloads.pull_memory_region(message.payload), message.attached)


async def _rem_mem_reg(session: Session, message: FrontEndMessage) -> None:
    await session.remove_memory(payloads.pull_memory_region(message.payload))


async def _set_mem_table(session: Session, message: FrontEndMessage) -> None:
    await session.replace_memory(payloads.pull_memory_table(message.payload), message.attached)


# --- rings ---


async def _set_vring_num(session: Session, message: FrontEndMessage) -> None:
    session.vrings.set_size(*_vring_state(session, message))


async def _set_vring_base(session: Session, message: FrontEndMessage) -> None:
    session.vrings.set_base(*_vring_state(session, message))


async def _get_vring_base(session: Session, message: FrontEndMessage) -> bytes:
    index, _ = _vring_state(session, message)
    return payloads.push_vring_state(VringState(index, await session.base(index)))


async def _set_vring_addr(session: Session, message: FrontEndMessage) -> None:
    addresses = payloads.pull_vring_addresses(message.payload)
    index = addresses.vring
    session.vrings.check_index(index)
    if addresses.flags & ~_served_flags(session):
        raise NotServed(
            f"ring {index}: expected VRING_LOG at most, and with LOG_SHMFD, got flags "
            f"{addresses.flags:#x}"
        )
    session.set_parts(index, addresses.descriptors, addresses.available, addresses.used)


async def _set_vring_kick(session: Session, message: FrontEndMessage) -> None:
    await session.set_kick(_eventfd_index(session, message), message.attached)


async def _set_vring_call(session: Session, message: FrontEndMessage) -> None:
    await session.set_call(_eventfd_index(session, message), message.attached)


async def _set_vring_err(session: Session, message: FrontEndMessage) -> None:
    index = _eventfd_index(session, message)
    session.vrings.set_error(index, message.attached.take_if_any())


async def _set_vring_enable(session: Session, message: FrontEndMessage) -> None:
    index, number = _vring_state(session, message)
    if number not in (0, 1):
        raise NotServed(f"ring {index}: expected 1 or 0 to enable it or not, got {number}")
    await session.enable(index, bool(number))


def _served_flags(session: Session) -> int:
    return payloads.VRING_LOG if ProtocolFeature.LOG_SHMFD in session.protocol_features else 0


def _vring_state(session: Session, message: FrontEndMessage) -> VringState:
    state = payloads.pull_vring_state(message.payload)
    session.vrings.check_index(state.vring)
    return state


def _eventfd_index(session: Session, message: FrontEndMessage) -> int:
    index, _ = payloads.pull_vring_descriptor(message.payload)
    session.vrings.check_index(index)
    return index


# --- the table ---


class _Rule(NamedTuple):
    """By what a request is served, and in which states."""

    handler: Callable[[Session, FrontEndMessage], Awaitable[bytes | None]]
    states: Container[SessionState] = frozenset(SessionState)


_STOPPED = frozenset({SessionState.NEW, SessionState.AGREED})
_AGREED = frozenset({SessionState.AGREED})
_SET_UP = frozenset({SessionState.AGREED, SessionState.RUNNING})

_WHY_NOT: Mapping[SessionState, str] = {
    SessionState.NEW: "expected SET_FEATURES before it, which has not come",
    SessionState.RUNNING: "expected a device that is stopped, it runs; ask for its rings' bases",
}

_RULES: Mapping[int, _Rule] = {
    FrontEndRequest.GET_FEATURES: _Rule(_get_features),
    FrontEndRequest.SET_FEATURES: _Rule(_set_features),
    FrontEndRequest.SET_OWNER: _Rule(_do_nothing),
    FrontEndRequest.RESET_OWNER: _Rule(_do_nothing),
    FrontEndRequest.SET_MEM_TABLE: _Rule(_set_mem_table),
    FrontEndRequest.SET_LOG_BASE: _Rule(_set_log_base),
    FrontEndRequest.SET_VRING_NUM: _Rule(_set_vring_num, _AGREED),
    FrontEndRequest.SET_VRING_ADDR: _Rule(_set_vring_addr, _SET_UP),
    FrontEndRequest.SET_VRING_BASE: _Rule(_set_vring_base, _AGREED),
    FrontEndRequest.GET_VRING_BASE: _Rule(_get_vring_base),
    FrontEndRequest.SET_VRING_KICK: _Rule(_set_vring_kick, _AGREED),
    FrontEndRequest.SET_VRING_CALL: _Rule(_set_vring_call),
    FrontEndRequest.SET_VRING_ERR: _Rule(_set_vring_err),
    FrontEndRequest.GET_PROTOCOL_FEATURES: _Rule(_get_protocol_features),
    FrontEndRequest.SET_PROTOCOL_FEATURES: _Rule(_set_protocol_features, _STOPPED),
    FrontEndRequest.GET_QUEUE_NUM: _Rule(_get_queue_num),
    FrontEndRequest.SET_VRING_ENABLE: _Rule(_set_vring_enable),
    FrontEndRequest.SEND_RARP: _Rule(_send_rarp),
    FrontEndRequest.SET_BACKEND_REQ_FD: _Rule(_set_backend_req_fd),
    FrontEndRequest.GET_CONFIG: _Rule(_get_config),
    FrontEndRequest.SET_CONFIG: _Rule(_set_config),
    FrontEndRequest.RESET_DEVICE: _Rule(_reset_device),
    FrontEndRequest.GET_MAX_MEM_SLOTS: _Rule(_get_max_mem_slots),
    FrontEndRequest.ADD_MEM_REG: _Rule(_add_mem_reg),
    FrontEndRequest.REM_MEM_REG: _Rule(_rem_mem_reg),
    FrontEndRequest.SET_STATUS: _Rule(_set_status),
    FrontEndRequest.GET_STATUS: _Rule(_get_status),
    FrontEndRequest.SET_DEVICE_STATE_FD: _Rule(_set_device_state_fd, _STOPPED),
    FrontEndRequest.CHECK_DEVICE_STATE: _Rule(_check_device_state),
}
