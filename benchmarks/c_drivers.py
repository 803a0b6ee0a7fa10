"""The drivers in C that Python is held against: built, and given their commands."""

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from vdpad.virtio.raw_command import AnyCommand

_FOLDER = Path(__file__).parent
_WARNINGS = ("-Wall", "-Wextra", "-Werror")


def built(name: str, folder: Path) -> Path:
    """The program of this name, built from benchmarks/NAME.c into a folder."""
    program = folder / name
    subprocess.run(["cc", "-O2", *_WARNINGS, "-o", program, _FOLDER / f"{name}.c"], check=True)
    return program


def write_batch(commands: Iterable[AnyCommand], file: Path) -> None:
    """Writes down encoded commands as the drivers read them (batch.h)."""
    encoded = [each.encode() for each in commands]
    file.write_bytes(b"".join(struct.pack("<I", len(each)) + each for each in encoded))
