"""What a back end is told when it begins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BackEndOptions:
    """What the command line says of a back end."""

    name: str
    state_directory: Path
    control: Mapping[str, Path]
    """Where the control sockets are bound, by name."""
    allowed: frozenset[int] = frozenset()
    """The uids that may ask there beside our own and root's."""
    shared_address_space: bool = False
    in_order: bool = False
    """The device returns buffers in the order in which they were made available."""
    stay: bool = False
    """For the next front end."""
    card_mac: bytes | None = None
    """What the card of a guest has whose VMM keeps the control queue; None for the device's own."""
    monitor: Path | None = None
    """The socket of a QMP monitor, by which the filter is followed."""
    card: str | None = None
    """Which card of QEMU's; None for the only one."""
    textfile: Path | None = None
    """Where metrics are written; None for none."""
    rehearses: bool = True
    """Whether a state that comes in by a VMM's stream is tried on the device."""
    inherited: Mapping[str, int] = field(default_factory=dict)
    """Sockets that a service manager has bound, by name."""
