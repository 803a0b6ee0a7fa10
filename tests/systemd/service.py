"""vdpad.service in the machine, as the tests see it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import GUARD, wait_until
from tests.vm.host import Caller, Json
from tests.vm.machine import Machine, Result

SOCKET = "/run/vdpad/vdpad.sock"
VARLINK = "/run/vdpad/io.vdpad"
CONFIG = "/etc/vdpad/vdpad.toml"
DROP_INS = "/etc/systemd/system/vdpad.service.d"
PLACED = "/usr/lib/vdpad/systemd"
RULES = "/etc/udev/rules.d/90-vdpad-vhost-vdpa.rules"

HERE = Path(__file__).resolve().parent
_PROBE = "Type=oneshot\\nWatchdogSec=0\\nRestart=no\\nStandardOutput=truncate:/run/probed\\n"


def give_time(vm: Machine, unit: str, more: str = "") -> None:
    """On an emulated machine, of a host under load, a start may take most of a minute.

    Args:
        vm: the machine; its systemd is to be told by daemon-reload.
        unit: the service that starts.
        more: lines of its section [Service].
    """
    folder = f"/run/systemd/system/{unit}.d"
    vm.output("mkdir", "-p", folder)
    vm.ask("write", path=f"{folder}/slow.conf", text=f"[Service]\nTimeoutStartSec=300\n{more}")


@dataclass
class Service:
    """The installed service, its settings and its journal."""

    vm: Machine
    _changed: list[str] = field(default_factory=list)

    @property
    def daemon(self) -> Caller:
        """For requests; whoever asks first starts it."""
        return Caller(self.vm, SOCKET)

    @property
    def pid(self) -> int:
        """Of the running daemon; 0 where there is none."""
        return int(self.show("MainPID"))

    def systemctl(self, *arguments: str) -> str:
        """What it prints; it must succeed."""
        return self.vm.output("systemctl", *arguments)

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.systemctl("show", "--value", "-p", name, "vdpad.service").strip()

    def sh(self, script: str) -> Result:
        """Runs a line of shell."""
        return self.vm.run("sh", "-c", script)

    def vdpactl(self, *arguments: str, uid: str = "0", gid: str = "0") -> Result:
        """Runs the installed client as somebody."""
        who = ("setpriv", "--reuid", uid, "--regid", gid, "--clear-groups")
        return self.vm.run(*who, "vdpactl", "--timeout", str(GUARD), *arguments)

    def status(self, key: str) -> str:
        """A line of the daemon's /proc/PID/status."""
        lines = self.vm.output("cat", f"/proc/{self.pid}/status").splitlines()
        (value,) = (line.partition(":")[2] for line in lines if line.startswith(f"{key}:"))
        return value.strip()

    def entries(self, *arguments: str) -> list[Json]:
        """The service's journal."""
        self.vm.output("journalctl", "--sync")
        said = self.vm.output("journalctl", "-u", "vdpad", "-o", "json", *arguments)
        return [json.loads(line) for line in said.splitlines()]

    def change(self, *, unit: str = "", config: str | None = None) -> None:
        """For one test: stops it, adds to the section [Service], or has other settings."""
        self.systemctl("stop", "vdpad.service")
        if config is not None:
            self.sh(f"cp -n {CONFIG} {CONFIG}.kept")
            self._write(CONFIG, config)
        if unit:
            self._write(f"{DROP_INS}/test.conf", f"[Service]\n{unit}\n")
            self.systemctl("daemon-reload")

    def give_devices(self) -> None:
        """As docs/operating.md has it; what runs has them from its next start on."""
        self.vm.output("mkdir", "-p", DROP_INS, RULES.rpartition("/")[0])
        self.vm.output("ln", "-s", f"{PLACED}/vhost-vdpa.conf", DROP_INS)
        self.vm.output("ln", "-s", f"{PLACED}/90-vdpad-vhost-vdpa.rules", RULES)
        self.vm.output("udevadm", "control", "--reload")
        trigger = ("--subsystem-match=vdpa", "--action=bind", "--settle")
        self.vm.output("udevadm", "trigger", *trigger)
        self.systemctl("daemon-reload")

    def drop_in(self, name: str, text: str) -> None:
        """For one test: lays settings over the others, from the next start or reload on."""
        self._write(f"{CONFIG.rpartition('/')[0]}/conf.d/{name}.toml", text)

    def _write(self, path: str, text: str) -> None:
        self.vm.output("mkdir", "-p", path.rpartition("/")[0])
        self.vm.ask("write", path=path, text=text)
        self._changed.append(path)

    def start(self) -> None:
        """Returns when it runs."""
        self.systemctl("start", "vdpad.service")

    def as_installed(self) -> None:
        """Takes back what a test has changed; the next request starts it."""
        if self._changed:
            self.systemctl("stop", "vdpad.service")
            self.vm.output("rm", "-f", *self._changed)
            self.sh(f"test -e {CONFIG} || mv {CONFIG}.kept {CONFIG}")
            self._changed.clear()
            self.systemctl("daemon-reload")
            self.systemctl("reset-failed", "vdpad.service", "vdpad.socket", "vdpad-varlink.socket")
            self.systemctl("start", "vdpad.socket")

    def kill(self, number: signal.Signals) -> None:
        """Sends the daemon a signal."""
        self.vm.output("kill", f"-{number:d}", str(self.pid))

    def probe(self) -> dict[str, str]:
        """What a process with the unit's settings, drop-ins and all, can do: probe.py says."""
        unit = "/run/systemd/system/vdpad-probe.service"
        self.sh(
            "{ cat /usr/lib/systemd/system/vdpad.service; "
            f"cat {DROP_INS}/*.conf 2>/dev/null || true; }} | grep -v -e ^Also= -e ^Exec > {unit}; "
            f"echo '[Service]\nExecStart=/usr/bin/python3 -I /run/probe.py\n{_PROBE}' >> {unit}"
        )
        self.vm.output("chmod", "666", "/dev/ttyS0")  # so that only the unit forbids it
        self.vm.output("cp", str(HERE / "probe.py"), "/run/probe.py")
        self.systemctl("daemon-reload")
        self.systemctl("start", "vdpad-probe.service")
        found: dict[str, str] = json.loads(self.vm.output("cat", "/run/probed"))
        return found

    def until(self, true: Callable[[], Any]) -> None:
        """Returns when it holds."""
        journal = "journalctl -u vdpad -n 30 --no-pager"
        wait_until(true, said=lambda: self.sh(journal).out)
