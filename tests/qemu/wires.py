# How doorbells and interrupts get across
#
# The borrower of the ring knows two eventfds. A write to the kick is turned into what a guest's
# driver would do: a write of the queue's number to its notify address. The device's interrupt is
# INTx, a level: it stays up until the ISR register is read, and while it is up nothing more is
# heard of it. So the ISR is read *first* and the call eventfd written *after* that read was
# answered. Whatever the device used before the read is covered by the call that follows it, and
# whatever it uses later raises the line anew; the other way round, a wake could be lost.
#
# Everything here is callbacks in the event loop, so a doorbell waits for no task switch.
#
# Sources: virtio 1.2, 4.1.4.4 (notification) and 4.1.4.5 (ISR status).
"""The kick and call eventfds of a lent queue, wired to the device over qtest."""

from __future__ import annotations

import asyncio
import os

from .pci import INTERRUPT_LINES
from .qtest import Qtest

ISR_QUEUE = 1


class Wires:
    """Forwards from construction to `close`, while the event loop runs."""

    def __init__(
        self, qtest: Qtest, *, kick_fd: int, call_fd: int, doorbell: int, queue: int, isr: int
    ) -> None:
        self._qtest = qtest
        self._kick_fd = kick_fd
        self._call_fd = call_fd
        self._ring = f"writew {doorbell:#x} {queue:#x}"
        self._read_isr = f"readb {isr:#x}"
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.kicks = 0
        """What was added to the kick eventfd in all."""
        self.doorbells = 0
        """Writes to the notify address; kicks that came between two of them are one."""
        self.interrupts = 0
        """Queue interrupts, each one write to the call eventfd."""
        self._loop.add_reader(kick_fd, self._kicked)

    def close(self) -> None:
        """Stop forwarding. The descriptors stay open; they are the caller's."""
        self._loop.remove_reader(self._kick_fd)
        # An ISR read may still be under way, and the call descriptor is about to be closed.
        self._closed = True

    def on_irq(self, line: int, raised: bool) -> None:
        """Take a line's change, as Qtest tells it."""
        if line in INTERRUPT_LINES and raised:
            self._qtest.send(self._read_isr).add_done_callback(self._isr_read)

    def _kicked(self) -> None:
        self.kicks += os.eventfd_read(self._kick_fd)
        self.doorbells += 1
        self._qtest.send(self._ring).add_done_callback(_take)

    def _isr_read(self, answer: asyncio.Future[str]) -> None:
        isr = _take(answer)
        if isr is not None and int(isr, 16) & ISR_QUEUE and not self._closed:
            self.interrupts += 1
            os.eventfd_write(self._call_fd, 1)


def _take(answer: asyncio.Future[str]) -> str | None:
    """Take an answer that nobody awaits; None where QEMU is gone, which its user sees elsewhere."""
    if answer.cancelled() or answer.exception() is not None:
        return None
    return answer.result()
