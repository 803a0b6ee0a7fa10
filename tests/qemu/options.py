"""What the harness can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .layout import BUFFERS_LIMIT, MAX_QUEUE_PAIRS, MIB
from .versions import PROGRAM

OLD_MACHINE = "pc-i440fx-2.3"
"""The last one whose stream has neither a configuration nor footers; QEMU 7.2 has it, later ones
don't. Its devices are legacy ones unless they are asked for with disable-modern=off."""
MACHINES = ("pc", "q35", OLD_MACHINE)


@dataclass(frozen=True)
class Options:
    """One guest-less machine. Raises ValueError where a value makes no sense."""

    qemu: str = PROGRAM
    """The program, by its name on PATH or by its path."""
    machine: str = "pc"
    """One of MACHINES."""
    root_port: bool = False
    """The device is behind a PCIe root port, which makes it a PCIe function; q35 only."""
    vectors: int = 0
    """MSI-X vectors of the device, 0 for none. Its driver leaves them off: it uses INTx."""
    queue_pairs: int = 4
    """Of the tap and of the device; MQ is offered from 2 on. At most MAX_QUEUE_PAIRS."""
    packed: bool = False
    """All rings are packed ones."""
    ring_size: int = 64
    """Descriptors of the control virtqueue, a power of two from 2 to 1024; on QEMU 11 to 64. Of a
    packed one any number in that range."""
    start_index: int = 0
    """Where the lent ring's available and used index stand, 0 to 65535; 0 where it is packed."""
    negotiate: frozenset[int] | None = None
    """Exactly these feature bits; None is everything offered but device.NOT_NEGOTIATED."""
    also: frozenset[int] = frozenset()
    """Feature bits beside these, which the device must offer."""
    without: frozenset[int] = frozenset()
    """Feature bits to leave out, e.g. 29 for RING_EVENT_IDX."""
    device_properties: str = ""
    """More -device properties, separated by commas, e.g. "rss=on,hash=on"."""
    more: tuple[str, ...] = ()
    """More arguments for QEMU."""
    mac: str = "52:54:00:12:34:56"
    buffers_size: int = MIB
    """Bytes of buffer space to lend, at most BUFFERS_LIMIT."""
    monitor: Path | None = None
    """Where another QMP socket stands, for a client that connects by itself."""

    def __post_init__(self) -> None:
        if self.machine not in MACHINES:
            raise ValueError(f"machine: {self.machine!r}; it is one of {MACHINES}")
        if self.root_port and self.machine != "q35":
            raise ValueError(f"root_port: the machine {self.machine} has no PCIe")
        if not 1 <= self.queue_pairs <= MAX_QUEUE_PAIRS:
            raise ValueError(f"queue_pairs: {self.queue_pairs}; it is 1 to {MAX_QUEUE_PAIRS}")
        if self.packed and self.start_index:
            raise ValueError(f"start_index: {self.start_index}; a packed ring is not worn in")
        if self.ring_size < 2 or (self.ring_size & (self.ring_size - 1) and not self.packed):
            raise ValueError(f"ring_size: {self.ring_size}; it is a power of two from 2 on")
        if not 0 <= self.start_index <= 0xFFFF:
            raise ValueError(f"start_index: {self.start_index}; it has 16 bits")
        if not 1 <= self.buffers_size <= BUFFERS_LIMIT:
            raise ValueError(f"buffers_size: {self.buffers_size}; it is 1 to {BUFFERS_LIMIT}")
