"""Devices that are open are refused before anything would wait for them."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vdpad.host.in_use import InUse, MayBeInUse, refuse_one_in_use

_OPEN = "import sys, os, time; os.open(sys.argv[1], os.O_RDWR); print('open', flush=True)"


def test_a_device_that_nobody_has_is_closed_again() -> None:
    before = os.listdir("/proc/self/fd")
    refuse_one_in_use("vdpa0", Path("/dev/null"))
    assert os.listdir("/proc/self/fd") == before


def test_one_that_a_process_has_is_told_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel has it of a vhost-vdpa node: EBUSY for whoever comes second."""
    node = tmp_path / "vhost-vdpa-0"
    os.symlink("/dev/full", node)

    def busy(*_arguments: Any) -> int:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    command = [sys.executable, "-S", "-c", f"{_OPEN}; time.sleep(100)", "/dev/full"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            monkeypatch.setattr(os, "open", busy)
            with pytest.raises(InUse, match=rf"\(pid {holder.pid}\)") as caught:
                refuse_one_in_use("vdpa0", node)
        finally:
            holder.kill()
    assert holder.pid in {each.pid for each in caught.value.holders}


@pytest.mark.parametrize("node", ["/dev/no-such-node", "/proc/self"])
def test_a_node_that_cannot_be_opened_tells_nothing(node: str) -> None:
    with pytest.raises(MayBeInUse, match=r"expected to open .*run this as root"):
        refuse_one_in_use("vdpa0", Path(node))
