"""Cards of the guest that are a vhost-user back end's, and the program that is that back end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backend.process import BackEndProcess
from tests.cli.commands import said
from tests.qemu.versions import Version
from tests.support.waiting import wait_until
from vdpad.state.model import NetState

from .machine import MEMORY, Guest, booted, slot

# A memfd: the back end maps the guest's memory.
_SHARED = (
    *("-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"),
    *("-machine", "memory-backend=memory"),
)


@dataclass(frozen=True)
class AllQueues:
    """Four queue pairs and the control queue, all of them the back end's. From QEMU 10.2 on."""

    socket: Path

    def options(self, at: int) -> tuple[str, ...]:
        """QEMU's, for the `at`-th."""
        card = f"vhost-user-test-device-pci,chardev=back-end{at},addr={slot(at)}"
        settings = "virtio-id=1,num_vqs=9,vq_size=256,config_size=24"
        return (
            *_SHARED,
            *("-chardev", f"socket,id=back-end{at},path={self.socket}"),
            *("-device", f"{card},{settings}"),
        )


@dataclass(frozen=True)
class DataQueues:
    """Two queue pairs of the back end's; QEMU keeps the control queue, and comes back."""

    socket: Path
    monitor: Path | None = None
    """Where QEMU tells a back end what it keeps."""

    def options(self, at: int) -> tuple[str, ...]:
        """QEMU's, for the `at`-th."""
        return (
            *_SHARED,
            *("-chardev", f"socket,id=back-end{at},path={self.socket},reconnect-ms=100"),
            *self._monitor(),
            *("-netdev", f"vhost-user,id=net{at},chardev=back-end{at},queues=2"),
            *("-device", f"virtio-net-pci,netdev=net{at},addr={slot(at)},romfile=,mq=on"),
        )

    def _monitor(self) -> tuple[str, ...]:
        return () if self.monitor is None else ("-qmp", f"unix:{self.monitor},server=on,wait=off")


def asked(process: BackEndProcess, command: str) -> dict[str, Any]:
    """What vdpactl tells of a back end."""
    told = said("--backend", process.varlink, command, "--json")
    result: dict[str, Any] = json.loads(told)
    return result


@dataclass
class OnBackEnd:
    """A guest whose eth0 is a back end's."""

    guest: Guest
    process: BackEndProcess

    def asked(self, command: str) -> dict[str, Any]:
        """What vdpactl tells of the back end."""
        return asked(self.process, command)

    def state(self) -> NetState:
        """What the back end has recorded, of which nothing is missing."""
        captured = self.asked("capture")
        assert (captured["missing"], captured["running"]) == ([], True)
        return NetState.model_validate(captured["state"])

    def send(self, number: int) -> None:
        """The guest sends so many packets at least. It has the address of its card by then."""
        mac = self.guest.run("cat /sys/class/net/eth0/address").strip()
        self.guest.run(
            "ip address replace 192.0.2.1/24 dev eth0",
            f"ip neigh replace 192.0.2.2 lladdr {mac} dev eth0",
            f"(ping -q -s 1400 -c {number} -i 0.01 -W 1 192.0.2.2 || true)",
        )

    def packets(self) -> tuple[int, int]:
        """How many packets the guest has sent and received since the driver was loaded."""
        counters = "/sys/class/net/eth0/statistics"
        sent, received = self.guest.run(f"cat {counters}/tx_packets {counters}/rx_packets").split()
        return int(sent), int(received)

    def check_loop(self, number: int = 50, lost: int = 0) -> None:
        """What the guest sends comes back to it, so many packets and those before them.

        Args:
            number: of packets to send.
            lost: how many of those before may not come.
        """
        before, _ = self.packets()
        self.send(number)
        wait_until(lambda: self._all_came_back(before + number, lost), said=self.process.log)

    def _all_came_back(self, least: int, lost: int) -> bool:
        sent, received = self.packets()
        return 0 <= sent - received <= lost and received >= least - lost


@contextmanager
def on_back_end(
    folder: Path,
    card: Callable[[Path], AllQueues | DataQueues],
    qemu: Version,
    *options: str,
    **more: Any,
) -> Iterator[OnBackEnd]:
    """A guest with one card, on a back end with a software device, for the time of the context.

    Args:
        folder: of the back end's sockets and state.
        card: by the socket of its back end.
        qemu: that runs it.
        options, more: of the back end, as of BackEndProcess.
    """
    with ExitStack() as stack:
        process = started(folder, *options, **more)
        stack.callback(process.stop)
        guest = stack.enter_context(booted([card(process.front_end)], qemu=qemu))
        on = OnBackEnd(guest, process)
        stack.callback(lambda: on.process.stop())
        yield on


def started(folder: Path, *options: str, **more: Any) -> BackEndProcess:
    """A back end that listens, and stays for the next front end."""
    return BackEndProcess(folder, "--stay", *options, **more).ready()
