# How the machine is run
#
# virtme-ng boots Debian's 6.12 (.ci/kernel) in QEMU, with this host's files as its own, read-only.
# A virtio-net device of that outer QEMU is the hardware: in the machine vp_vdpa drives it, and
# query-rx-filter of the outer QEMU, which knows nothing of us, is the judge. KVM is not used even
# where it is there, so that the machine is the same everywhere.
#
# It has one processor. Hardly anything in it would use a second one, which costs a quarter of the
# speed; and with several, a QEMU before 8.1 may run code that the kernel is just patching, which
# ends in an Oops of int3 once in many boots, and more often the busier the host is.
#
# All of it lives in a PID namespace that ends with the process started here, and in a network
# namespace with nothing but the tap: whatever becomes of the tests, nothing of it is left.
"""A virtual machine with vDPA devices: boot it, ask its agent, judge by its outer QEMU."""

from __future__ import annotations

import asyncio
import compileall
import functools
import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.qemu.process import TUN
from tests.qemu.qmp import Qmp, RxFilter
from tests.qemu.versions import CACHE, PROGRAM
from tests.support.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (PROGRAM, "unshare", "setpriv", "busybox", "depmod", "file", "vdpa")
MAC = "52:54:00:00:00:0a"

# Else the kernel tries whether timer interrupts come as fast as its loops turn, and panics where
# they do not: on a host with other things to do emulated ones may be late.
UNTIMED = "no_timer_check"

_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "-n" if os.geteuid() == 0 else "-rn", "--pid", "--fork", "--kill-child"),
)


T = TypeVar("T")


class Gone(Exception):
    """The machine does not answer; the text ends in what its console said."""


@functools.cache
def kernel() -> Path | None:
    """The folder that .ci/kernel made, the newest of them."""
    ready = sorted(CACHE.glob("kernel-*/ready"), key=lambda each: each.stat().st_mtime)
    return ready[-1].parent if ready else None


@functools.cache
def why_unavailable() -> str | None:
    """What keeps this host from running the machine, or None."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    for program in PROGRAMS:
        if shutil.which(program, path=path) is None:
            return f"{program} is not installed"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} cannot be opened"
    return why_no_kernel()


def why_no_kernel() -> str | None:
    """Why .ci/kernel left no kernel, or None where it did."""
    if kernel() is not None:
        return None
    reason = CACHE / "no-kernel"
    said = reason.read_text().strip() if reason.exists() else "run `make test`"
    return f"no kernel for the virtual machine: {said}"


@dataclass(frozen=True)
class Result:
    """How a program in the machine ended."""

    code: int
    out: str
    err: str


class Machine:
    """A running machine. Requests may overlap: begin one, do others, then finish it."""

    def __init__(self, agent: socket.socket, qmp: Path, console: Path) -> None:
        self._agent = agent.makefile("rwb")
        self._qmp = qmp
        self._console = console
        self._ids = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self.finish(0)

    def begin(self, verb: str, **arguments: Any) -> int:
        """Asks the agent for something, and gives the number to finish it by."""
        number = next(self._ids)
        request = {"id": number, "verb": verb, "arguments": arguments}
        self._agent.write(json.dumps(request).encode() + b"\n")
        self._agent.flush()
        return number

    def finish(self, number: int) -> Any:
        """What came of it."""
        while number not in self._replies:
            try:
                line = self._agent.readline()
            except TimeoutError:
                line = b""
            if not line:
                raise Gone(f"no answer from the machine\n{self.console()[-4000:]}")
            reply = json.loads(line)
            self._replies[reply["id"]] = reply
        reply = self._replies.pop(number)
        assert "error" not in reply, reply["error"]
        return reply["result"]

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Begins and finishes."""
        return self.finish(self.begin(verb, **arguments))

    def run(self, *argv: str, stdin: str = "") -> Result:
        """Runs a program."""
        return Result(**self.ask("run", argv=argv, stdin=stdin))

    def output(self, *argv: str) -> str:
        """What a program prints that must succeed."""
        result = self.run(*argv)
        assert result.code == 0, result
        return result.out

    def rx_filter(self) -> RxFilter:
        """The receive filter of the device under vp0, by the outer QEMU's word."""
        return self._with_qmp(lambda qmp: qmp.query_rx_filter())

    def set_link(self, *, up: bool) -> None:
        """Has the outer QEMU plug the cable of the device under vp0 in, or out."""
        self._with_qmp(lambda qmp: qmp.execute("set_link", name="net", up=up))

    def _with_qmp(self, ask: Callable[[Qmp], Awaitable[T]]) -> T:
        async def ask_it() -> T:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self._qmp))
            qmp = await Qmp.over(connection)
            try:
                return await ask(qmp)
            finally:
                await qmp.close()

        return asyncio.run(ask_it())

    def console(self) -> str:
        """All that the machine's kernel and boot script have said."""
        return self._console.read_text(errors="replace")


@contextmanager
def machine(
    *, cpus: int = 1, device: str = "", memory: str = "1G", qemu: str = PROGRAM
) -> Iterator[Machine]:
    """A machine for the time of the context.

    Args:
        cpus: of the machine.
        device: more properties of its network device, such as "event_idx=off".
        memory: as QEMU's -m.
        qemu: the outer one.
    """
    # The machine may write nothing there, and would compile it anew whenever it starts a program.
    compileall.compile_dir(ROOT / "vdpad", quiet=1)
    # virtme looks for none on the PATH where one is named.
    options = {"cpus": str(cpus), "memory": memory, "qemu": shutil.which(qemu) or qemu}
    with running(lambda folder: _command(folder, device, options)) as vm:
        yield vm


@contextmanager
def running(command: Callable[[Path], list[str]]) -> Iterator[Machine]:
    """The machine that a command starts, which is told the folder of its sockets."""
    with tempfile.TemporaryDirectory(prefix="vdpad-vm-") as name:
        folder = Path(name)
        with (folder / "console").open("wb") as console:
            child = subprocess.Popen(
                [*_CONTAINED, *command(folder)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=_environment(),
            )
        try:
            agent = _connected(folder / "agent", child, folder / "console")
            with agent:
                yield Machine(agent, folder / "qmp", folder / "console")
        finally:
            child.kill()
            child.wait()


def _command(folder: Path, device: str, options: Mapping[str, str]) -> list[str]:
    found = kernel()
    assert found is not None
    release = (found / "ready").read_text().strip()
    boot = [
        *("sh", ROOT / "tests/vm/boot.sh", found / "modules"),
        *("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.vm.agent"),
    ]
    return [
        *(sys.executable, "-m", "virtme_ng.run"),
        *("--run", str(found / f"boot/vmlinuz-{release}"), "--verbose", "--disable-kvm"),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
        "--force-9p",
        *("--append", f"intel_iommu=on {UNTIMED}", "--append", "loglevel=4"),
        f"--qemu-opts={qemu_options(folder, device)}",
        *("--", shlex.join(map(str, boot))),
    ]


def qemu_options(folder: Path, device: str = "") -> str:
    """What the outer QEMU is told of the machine's devices, of its agent and of its QMP."""
    # iommu_platform: else the kernel will not let a vDPA driver have the device. The rest is what
    # QEMU 10's shadow virtqueue would refuse, left out so that benchmarks compare the same device.
    hardware = (
        "virtio-net-pci,netdev=net,romfile=,disable-legacy=on,iommu_platform=on,ctrl_vq=on,"
        "ctrl_guest_offloads=on,hash=on,indirect_desc=off,guest_announce=off,"
        f"mac={MAC}{',' if device else ''}{device}"
    )
    return " ".join(
        (
            "-machine q35 -device intel-iommu,device-iotlb=off",
            "-netdev tap,id=net,ifname=tap0,script=no,downscript=no",
            f"-device {hardware}",
            f"-qmp unix:{folder}/qmp,server=on,wait=off",
            f"-chardev socket,id=agent,path={folder}/agent,server=on,wait=off",
            "-device virtio-serial-pci -device virtserialport,name=vdpad.agent,chardev=agent",
            "-fsdev local,id=cached,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device virtio-9p-pci,fsdev=cached,mount_tag=cached",
            # Hundreds of eventfds of no use here slow the outer QEMU's main loop.
            "-global virtio-serial-pci.ioeventfd=off -global virtio-9p-pci.ioeventfd=off",
        )
    )


def _environment() -> dict[str, str]:
    """virtme-ng finds its own helpers on the PATH, and depmod in sbin."""
    path = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    return {**os.environ, "PATH": os.pathsep.join(path)}


def _connected(path: Path, child: subprocess.Popen[bytes], console: Path) -> socket.socket:
    """The agent's end, once QEMU listens. The agent says hello when it is there."""
    until = time.monotonic() + GUARD
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(GUARD)
    while True:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            if child.poll() is not None or time.monotonic() > until:
                connection.close()
                raise Gone(console.read_text(errors="replace")[-4000:]) from None
            time.sleep(0.05)
        else:
            return connection
