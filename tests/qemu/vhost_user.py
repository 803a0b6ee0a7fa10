# How the machine runs without a guest
#
# Under -S QEMU never starts vhost, so the machine runs: its processor executes a firmware of two
# instructions, `cli` and `hlt`, and stands still for good. The test is its driver, over qtest, up
# to DRIVER_OK; then QEMU hands the rings to the back end, and QMP's stop, cont and system_reset do
# to them what a VMM does. The back end is in the test's process, behind a socket with a path, as
# QEMU is to come back to it.
"""A running machine whose network card is a vhost-user back end's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import GUARD

from .device import Device, sensible
from .layout import MEMORY_SIZE, MIB, data_ring
from .pci import VirtioBlocks, open_virtio_net
from .process import Process, run_command
from .qmp import Qmp
from .qtest import Qtest

FIRMWARE_BYTES = 64 * 1024
RESET_VECTOR = FIRMWARE_BYTES - 16
CLI_HLT = b"\xfa\xf4"
FAR_JUMP_TO_ITS_START = b"\xea\x00\x00\x00\xf0"


def all_queues(queues: int) -> tuple[str, ...]:
    """Return a card that has so many queues, all of them the back end's. From QEMU 10.2 on."""
    return (
        "-device",
        f"vhost-user-test-device-pci,chardev=back-end,virtio-id=1,num_vqs={queues}",
        *("-global", "vhost-user-test-device.vq_size=256"),
        *("-global", "vhost-user-test-device.config_size=24"),
    )


ALL_QUEUES = all_queues(5)
"""That with the queues of two pairs."""
NETDEV = (
    *("-netdev", "vhost-user,id=net,chardev=back-end,queues=2"),
    *("-device", "virtio-net-pci,netdev=net,romfile=,disable-legacy=on,mq=on"),
)
"""A card that keeps the control queue to itself."""


@dataclass(frozen=True)
class Machine:
    """A machine that runs, and how its driver and its VMM get at it."""

    process: Process
    qtest: Qtest
    qmp: Qmp
    blocks: VirtioBlocks
    device: Device

    async def drive(self, queues: int, without: frozenset[int] = frozenset()) -> frozenset[int]:
        """Bring the card up with its first so many queues; return the features it has then."""
        offered = await self.device.acknowledge()
        features = sensible(offered, without)
        await self.device.negotiate(features, offered)
        for index in range(queues):
            await self.device.set_up_queue(index, data_ring(index))
        await self.device.start()
        return features


def write_firmware(path: Path) -> None:
    """Write a firmware that does nothing."""
    firmware = bytearray(FIRMWARE_BYTES)
    firmware[: len(CLI_HLT)] = CLI_HLT
    firmware[RESET_VECTOR : RESET_VECTOR + len(FAR_JUMP_TO_ITS_START)] = FAR_JUMP_TO_ITS_START
    path.write_bytes(firmware)


@asynccontextmanager
async def machine(
    program: str,
    card: tuple[str, ...],
    back_end: Path,
    reconnect: str = "",
    *,
    kind: str = "pc",
    more: tuple[str, ...] = (),
) -> AsyncIterator[Machine]:
    """Run a machine for the time of the context.

    `back_end` is the socket of the back end, which listens; `reconnect` is the chardev's property;
    `kind` is the machine's; `more` are other options.
    """
    chardev = ("-chardev", f"socket,id=back-end,path={back_end}{reconnect}")
    firmware = back_end.with_suffix(".firmware")
    async with driven(program, (*chardev, *card, *more), firmware, kind=kind) as qemu:
        yield qemu


@asynccontextmanager
async def driven(
    program: str, options: tuple[str, ...], firmware: Path, *, kind: str = "pc"
) -> AsyncIterator[Machine]:
    """Run a machine that has a card by these options; its firmware is written there."""
    write_firmware(firmware)

    def command(qtest: int, qmp: int) -> list[str]:
        return [
            *("setpriv", "--pdeathsig", "KILL", program),
            *("-no-user-config", "-nodefaults", "-display", "none", "-accel", "tcg"),
            *("-machine", f"{kind},memory-backend=memory", "-m", f"{MEMORY_SIZE // MIB}M"),
            *("-object", f"memory-backend-memfd,id=memory,size={MEMORY_SIZE},share=on"),
            *("-bios", str(firmware)),
            *options,
            *("-chardev", f"socket,id=qtest,fd={qtest}", "-qtest", "chardev:qtest"),
            *("-qtest-log", "/dev/null"),
            *("-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"),
        ]

    async with run_command(command) as process, AsyncExitStack() as stack:
        qtest = await Qtest.over(process.qtest)
        stack.push_async_callback(qtest.close)
        async with asyncio.timeout(GUARD):
            qmp = await Qmp.over(process.qmp)
            stack.push_async_callback(qmp.close)
            blocks = await open_virtio_net(qtest)
        yield Machine(process, qtest, qmp, blocks, Device(qtest, blocks))
