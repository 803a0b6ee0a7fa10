"""The log that each language writes is byte for byte the one that Python does."""

from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.kit.building import SANITIZED, compiled_c, compiled_rust
from vdpad.state.formats import command_log
from vdpad.state.observed import MAX_COMMAND
from vdpad.virtio.bits import bits_of

STATE = b'{"version":1}'


def _writer(language: str, folder: Path) -> tuple[Path, str]:
    """What writes a log, and what it says when the log is full."""
    source = Path(__file__)
    if language == "Rust":
        return compiled_rust(folder / "log", source.with_name("log.rs")), "the log is full"
    program = compiled_c(folder / "log", source.with_name("log.c"), more=SANITIZED)
    return program, "File too large"


@pytest.mark.parametrize("language", ["C", "Rust"])
def test_the_log_is_the_same(language: str, tmp_path: Path) -> None:
    program, full = _writer(language, tmp_path)
    written = tmp_path / "vm.log"
    done = run(program, written)
    assert done.returncode == 0, done.stderr
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
    assert done.stdout == f"{fitting} commands, then {full}\n"
    assert written.read_bytes() == before + fitting * table
