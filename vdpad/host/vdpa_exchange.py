"""The process that asks the kernel: a conversation over its standard input and output.

It says "ready", then answers lines of JSON: a command and its attributes come in, such as
`["DEV_GET", {"DEV_NAME": "sim0"}]`, and go out as `{"replies": [[["DEV_NAME", "sim0"], …]]}`, or as
what went wrong: `{"errno": 19, "words": "vdpa: device not found"}`, `{"odd": "…"}`. A command
without attributes asks for all there are. The order of attributes is kept: one may occur more than
once. At the end of its input the process ends. Why it is a process: see `vdpa_asker`.

pyroute2 does the netlink, with three habits that matter here. It decodes an attribute when it is
looked at; one that it cannot decode it logs, and gives its bytes. It reads a number without a look
at the attribute's length. And a message that it cannot take apart comes without any error, only
with `decoded` unset. So these are checked, and any error of its own is an odd reply.

Source: Linux include/uapi/linux/vdpa.h (numbers), drivers/vdpa/vdpa.c (types as they are sent).
"""

import asyncio
import json
import logging
import signal
import sys
from enum import IntEnum
from typing import Any, TextIO

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket

from vdpad.errors import VdpadError

FAMILY = "vdpa"
_VERSION = 1

Attributes = list[tuple[str, int | str]]


class VdpaCommand(IntEnum):
    """enum vdpa_command: those that vdpad sends."""

    MGMTDEV_GET = 2
    DEV_NEW = 3
    DEV_DEL = 4
    DEV_GET = 5
    DEV_CONFIG_GET = 6
    DEV_VSTATS_GET = 7


class Odd(VdpadError):
    """A reply that is not built as vdpa's are."""


_PREFIX = "VDPA_ATTR_"

# enum vdpa_attr from 0, with pyroute2's names for the types. It ends at 20: what 21 is depends on
# the kernel (the offered features in 6.1, a block device's capacity in 6.2 and later).
_TYPES = {
    "PAD": "none",
    "MGMTDEV_BUS_NAME": "asciiz",
    "MGMTDEV_DEV_NAME": "asciiz",
    "MGMTDEV_SUPPORTED_CLASSES": "uint64",
    "DEV_NAME": "asciiz",
    "DEV_ID": "uint32",
    "DEV_VENDOR_ID": "uint32",
    "DEV_MAX_VQS": "uint32",
    "DEV_MAX_VQ_SIZE": "uint16",
    "DEV_MIN_VQ_SIZE": "uint16",
    "DEV_NET_CFG_MACADDR": "l2addr",
    "DEV_NET_STATUS": "uint16",  # the header says u8
    "DEV_NET_CFG_MAX_VQP": "uint16",
    "DEV_NET_CFG_MTU": "uint16",
    "DEV_NEGOTIATED_FEATURES": "uint64",
    "DEV_MGMTDEV_MAX_VQS": "uint32",
    "DEV_SUPPORTED_FEATURES": "uint64",
    "DEV_QUEUE_INDEX": "uint32",
    "DEV_VENDOR_ATTR_NAME": "asciiz",
    "DEV_VENDOR_ATTR_VALUE": "uint64",
    "DEV_FEATURES": "uint64",
}
_SIZES = {"uint16": 2, "uint32": 4, "uint64": 8, "l2addr": 6}
_ATTRIBUTE_HEADER = 4


class VdpaMessage(genlmsg):  # type: ignore[misc]
    """A request to the family, or a reply of its."""

    prefix = _PREFIX
    nla_map = tuple((_PREFIX + name, type_) for name, type_ in _TYPES.items())


class VdpaSocket(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    """A netlink socket that knows the family's number, from when it is entered."""

    module_err_level = "debug"

    async def __aenter__(self) -> "VdpaSocket":
        try:
            await self.bind(FAMILY, VdpaMessage)
        except BaseException:
            self.close()
            raise
        return self

    async def exchange(
        self, command: VdpaCommand, attributes: dict[str, int | str]
    ) -> list[Attributes]:
        """The kernel's replies to one command: about one device, or without attributes about all.

        Raises:
            NetlinkError: the kernel's refusal.
            OSError: the socket's.
            Odd: a reply that makes no sense.
        """
        how = NLM_F_ACK if attributes else NLM_F_DUMP
        replies = await self.nlm_request(
            push_request(command, attributes), msg_type=self.prid, msg_flags=NLM_F_REQUEST | how
        )
        # Where there is no reply, pyroute2 gives the acknowledgement for one.
        return [pull_reply(each) async for each in replies if each["header"]["type"] != NLMSG_ERROR]


def push_request(command: VdpaCommand, attributes: dict[str, int | str]) -> VdpaMessage:
    """A request, not yet encoded."""
    message = VdpaMessage()
    message["cmd"] = command
    message["version"] = _VERSION
    message["attrs"] = [[_PREFIX + name, value] for name, value in attributes.items()]
    return message


def pull_reply(message: VdpaMessage) -> Attributes:
    """The attributes of a reply that pyroute2 has decoded; those past 20 are left out.

    Raises:
        Odd: it is not whole, or an attribute has not its type's length.
    """
    if not message.decoded:
        raise Odd("a message that ends before its attributes do")
    attributes: Attributes = []
    for slot in message["attrs"]:
        name = slot.name.removeprefix(_PREFIX)
        if name in _TYPES and name != "PAD":
            attributes.append((name, _value(name, slot)))
    return attributes


def _value(name: str, slot: Any) -> int | str:
    value = slot.value
    there = slot.nla.length - _ATTRIBUTE_HEADER
    if not slot.nla.decoded or _SIZES.get(_TYPES[name], there) != there:
        raise Odd(f"{name} of {there} bytes")
    # Text that is not UTF-8.
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def fault_of(error: Exception) -> dict[str, Any]:
    """What went wrong, for the other process."""
    if isinstance(error, NetlinkError):
        return {"errno": error.code, "words": error.args[1]}
    if isinstance(error, OSError):
        return {"errno": error.errno, "words": error.strerror}
    return {"odd": str(error) if isinstance(error, Odd) else repr(error)}


async def _answer(socket: VdpaSocket, line: str) -> dict[str, Any]:
    command, attributes = json.loads(line)
    try:
        return {"replies": await socket.exchange(VdpaCommand[command], attributes)}
    except Exception as error:
        return fault_of(error)


async def serve(requests: TextIO, answers: TextIO) -> None:
    """Answers requests until there are no more; where the family cannot be had, that is said."""
    try:
        async with VdpaSocket(ext_ack=True) as socket:
            for line in requests:
                print(json.dumps(await _answer(socket, line)), file=answers, flush=True)
    except Exception as error:
        print(json.dumps(fault_of(error)), file=answers, flush=True)


def main() -> None:
    """Runs the process."""
    # Where nobody reads the answer any more, there is nothing to be said about it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # What pyroute2 logs is in the answer.
    logging.disable()
    print("ready", flush=True)
    asyncio.run(serve(sys.stdin, sys.stdout))


if __name__ == "__main__":
    main()
