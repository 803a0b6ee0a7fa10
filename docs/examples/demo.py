"""What `make run` shows: the daemon on its software device, states sent, the device read back.

The device holds either RSS or a hash report, so two states are sent: between them they have every
kind of part. After each restore the daemon's software device writes down what it then holds (its
`state_file`), and that is compared with what was sent, part by part.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vdpad.state.model import NetState

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
STATES = ("state.json", "state-hash-report.json")

CONFIG = """
[[software]]
name = "sim0"
state_file = "{state_file}"
"""


def main() -> int:
    """Runs the demo; 0 where every state arrived."""
    with tempfile.TemporaryDirectory(prefix="vdpad-demo-") as name:
        folder = Path(name)
        state_file = folder / "sim0.json"
        config = folder / "vdpad.toml"
        config.write_text(CONFIG.format(state_file=state_file))
        with daemon(folder / "vdpad.sock", config, folder / "log"):
            arrived = [send(folder / "vdpad.sock", HERE / state, state_file) for state in STATES]
    return 0 if all(arrived) else 1


@contextlib.contextmanager
def daemon(socket: Path, config: Path, log: Path) -> Iterator[None]:
    """A running vdpad, stopped again at the end."""
    command = [str(BIN / "vdpad"), "--socket", str(socket), "--config", str(config)]
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            while not socket.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the daemon did not start:\n{log.read_text()}")
                time.sleep(0.01)
            yield
        finally:
            process.terminate()


def send(socket: Path, state: Path, state_file: Path) -> bool:
    """Restores one state and compares; tells on standard output."""
    command = ["vdpactl", "--socket", str(socket), "restore", state.stem, str(state)]
    print(f"$ {' '.join([*command[:-1], state.name])} --software sim0", flush=True)
    done = subprocess.run([BIN / command[0], *command[1:], "--software", "sim0"], check=False)
    if done.returncode:
        return False
    differences = list(differing_parts(state.read_text(), state_file.read_text()))
    if differences:
        print(f"\nThe device's state differs from the state sent: {', '.join(differences)}\n")
        return False
    parts = NetState.model_validate_json(state.read_text()).model_fields_set
    print(f"\nThe device's state equals the state sent, in all of: {', '.join(sorted(parts))}\n")
    return True


def differing_parts(sent: str, held: str) -> Iterator[str]:
    """The parts of a sent state that the device holds otherwise."""
    wanted = json.loads(NetState.model_validate_json(sent).model_dump_json(exclude_none=True))
    there = json.loads(NetState.model_validate_json(held).model_dump_json(exclude_none=True))
    for part, value in wanted.items():
        if part == "features":
            # The device may have more than the guest used.
            if not set(value) <= set(there[part]):
                yield part
        elif not holds(there.get(part), value):
            yield part


def holds(there: object, wanted: object) -> bool:
    """Whether what is there is what is wanted; a key that nobody sent may have any value."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return all(holds(there.get(key), value) for key, value in wanted.items())
    return there == wanted


if __name__ == "__main__":
    sys.exit(main())
