"""RLIMIT_AS: below what it may need a back end does not start; at that a guest's memory fits in."""

import asyncio
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.backend.process import PROGRAM, BackEndProcess, running
from tests.backend.vmm import OK
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, until
from tests.vhost_user.log_file import log_file
from vdpad.backend.address_space import NEEDED_MIB
from vdpad.virtio.commands import VlanAdd

# The guest's memory and its log, in MiB; tests/support/guest.py has 6 at the most.
BESIDE = 128


def bounded(mib: int) -> tuple[str, ...]:
    """The command line of a back end whose address space is bounded."""
    return ("sh", "-c", f'ulimit -v {mib << 10} && exec {shlex.join(PROGRAM)} "$@"', "back end")


@pytest.mark.parametrize("mib", [200, NEEDED_MIB - 1])
def test_too_little_is_refused_at_the_start(tmp_path: Path, mib: int) -> None:
    done = subprocess.run(
        [*bounded(mib), "--software=loop", "--name=net0", f"--socket-path={tmp_path / 'front-end'}"]
        + [f"--{each}={tmp_path / each}" for each in ("control", "varlink", "state-directory")],
        capture_output=True,
        cwd=ROOT,
        timeout=GUARD,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    beginning = f"vdpad-vhost-user: expected {NEEDED_MIB} MiB of address space at least, got a "
    assert done.stderr.startswith(f"{beginning}bound of {mib} (RLIMIT_AS")
    assert not (tmp_path / "control").exists()


async def test_a_guest_is_served_and_logged_in_what_is_needed(tmp_path: Path) -> None:
    program = bounded(NEEDED_MIB + BESIDE)
    async with running(tmp_path, program=program) as process, process.vmm() as vmm:
        await vmm.start()
        assert await vmm.command(VlanAdd(7).encode()) == OK
        with log_file(1 << 31 >> 15) as log:
            await vmm.log(log)
        assert await vmm.loop(b"packet") == b"packet"
        await asyncio.gather(*(process.ask("capture") for _ in range(200)))
        logging = (await process.ask("status"))["logging"]
        assert logging["way"] == "relay"


async def test_numpy_makes_no_thread(tmp_path: Path) -> None:
    """Its OpenBLAS has one for each processor, and ends the process where it gets none."""
    async with running(tmp_path, program=PROGRAM) as process, process.vmm() as vmm:
        await vmm.start()
        # The event loop's, the software device's, and that of its steps; those that close what the
        # front end sent have ended.
        await until(lambda: threads(process) == 3)
        with log_file(1 << 31 >> 15) as log:
            await vmm.log(log)
        assert has_numpy(process)
        # And the relay's.
        await until(lambda: threads(process) == 4)


def has_numpy(process: BackEndProcess) -> bool:
    """Whether it has loaded it."""
    return "numpy" in Path(f"/proc/{process.process.pid}/maps").read_text()


def threads(process: BackEndProcess) -> int:
    """How many it has."""
    return len(os.listdir(f"/proc/{process.process.pid}/task"))
