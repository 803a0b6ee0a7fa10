"""Faults in streams, and what may come of reading one."""

import io
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pipe import Pipe
from vdpad.state.formats.qemu import QemuStream, read_stream
from vdpad.state.found import FormatError
from vdpad.state.model import NetState

MAX_MEMORY = 64 << 20
"""Bytes, of all the process."""


def read_file(data: bytes) -> QemuStream:
    """Read as a file."""
    return read_stream(io.BytesIO(data))


def read_pipe(data: bytes) -> QemuStream:
    """Read as a pipe."""
    return read_stream(io.BufferedReader(Pipe(data, most=1 << 16)))


READERS: tuple[Callable[[bytes], QemuStream], ...] = (read_file, read_pipe)


@contextmanager
def little_memory() -> Iterator[None]:
    """The process may not have needed MAX_MEMORY more than it had, at any moment."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    yield
    assert _memory("VmHWM") - before < MAX_MEMORY


def _memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def refused_or_valid(read: Callable[[bytes], QemuStream], data: bytes) -> bool:
    """Read; tell whether it was refused. Anything but these two ends is raised."""
    try:
        found = read(data)
    except FormatError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert len(told) < 1000
        return True
    for device in found.devices:
        assert (device.state is None) is bool(device.problems)
        if device.state is not None:
            again = NetState.model_validate_json(device.state.model_dump_json(exclude_none=True))
            assert again == device.state
    return False


def mutated(stream: bytes, chance: random.Random) -> bytes:
    """The stream with one to four faults."""
    made = bytearray(stream)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(made))
        kind = chance.randrange(6)
        if kind == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at] = chance.choice((0, 1, 5, 0x7E, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            made[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
        elif kind == 3:
            del made[at : at + chance.randrange(1, 64)]
        elif kind == 4:
            made[at:at] = chance.randbytes(chance.randrange(1, 64))
        else:
            start = chance.randrange(len(made))
            made[at : at + 32] = made[start : start + 32]
    return bytes(made)
