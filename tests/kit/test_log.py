"""The log that the header in C writes is byte for byte the one that Python does."""

import subprocess
from pathlib import Path

from tests.kit.building import SANITIZED, compiled_c
from vdpad.state.formats import command_log
from vdpad.state.observed import MAX_COMMAND
from vdpad.virtio.bits import bits_of

STATE = b'{"version":1}'


def test_the_log_is_the_same(tmp_path: Path) -> None:
    program = compiled_c(tmp_path / "log", Path(__file__).with_name("log.c"), more=SANITIZED)
    written = tmp_path / "vm.log"
    done = subprocess.run([program, written], capture_output=True, text=True, check=True)
    header = command_log.push_header(bits_of(0xE0000 | 1 << 64))
    before = (
        header
        + len(STATE).to_bytes(4, "little")
        + bytes.fromhex("03000000")
        + STATE
        + command_log.push_command(bytes([2, 0, 42, 0]), 0)
        + command_log.push_command(bytes([2, 0, 43, 0]), 255)
        + command_log.push_command(b"", 0)
        + command_log.push_reset(bits_of(0x60000 | 1 << 127))
    )
    table = command_log.push_command(bytes([1, *bytes(MAX_COMMAND + 100)]), 0)
    fitting = (command_log.MAX_SIZE - len(before)) // len(table)
    assert done.stdout == f"{fitting} commands, then File too large\n"
    assert written.read_bytes() == before + fitting * table
