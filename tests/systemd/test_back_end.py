"""An instance of the back end: started by its socket, asked as an operator does, and stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_until
from vdpad.wire.addresses import BACK_ENDS

from .service import PATIENCE, Service

NAME = "net0"
UNIT = f"vdpad-vhost-user@{NAME}.service"
SOCKET_UNIT = f"vdpad-vhost-user@{NAME}.socket"
SOCKET = f"/run/vdpad/vhost-user-{NAME}.sock"
FOLDER = BACK_ENDS / NAME
DROP_IN = f"/run/systemd/system/{UNIT}.d"
COMMAND = "/usr/bin/vdpad-vhost-user --name %i --software --stay"
CONNECT = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    "print(flush=True); time.sleep(3600)"
)
"""Connects and says nothing more."""


class Instance:
    """The units of one instance."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.vm = service.vm

    def show(self, name: str) -> str:
        """A property of its service."""
        return self.service.systemctl("show", "--value", "-p", name, UNIT).strip()

    def until(self, state: str) -> None:
        """Returns when its service is so."""
        wait_until(lambda: self.show("ActiveState") == state, PATIENCE, said=self.journal)

    def journal(self) -> str:
        """What it has said."""
        return self.vm.output("journalctl", "-u", UNIT, "-n", "40", "--no-pager")

    def connect(self) -> int:
        """A front end that stays; its pid."""
        argv = ["python3", "-I", "-c", CONNECT, SOCKET]
        pid: int = self.vm.ask("spawn", argv=argv, stderr="/run/front-end")
        return pid

    def asked(self, command: str) -> dict[str, object]:
        """What vdpactl tells of it."""
        done = self.service.vdpactl("--backend", NAME, command, "--json")
        assert done.code == 0, (done, self.journal())
        told: dict[str, object] = json.loads(done.out)
        return told


@pytest.fixture
def instance(booted: Service) -> Iterator[Instance]:
    """One with a software device, whose socket listens."""
    vm = booted.vm
    vm.output("mkdir", "-p", DROP_IN)
    text = f"[Service]\nTimeoutStartSec=300\nExecStart=\nExecStart={COMMAND}\n"
    vm.ask("write", path=f"{DROP_IN}/software.conf", text=text)
    booted.systemctl("daemon-reload")
    booted.systemctl("start", SOCKET_UNIT)
    yield Instance(booted)
    booted.systemctl("stop", SOCKET_UNIT, UNIT)
    vm.output("rm", "-rf", DROP_IN, str(FOLDER))
    booted.systemctl("daemon-reload")


def test_the_first_front_end_starts_it(instance: Instance) -> None:
    vm = instance.vm
    assert instance.show("ActiveState") == "inactive"
    assert vm.output("stat", "-c", "%U:%G %a", SOCKET) == "root:vdpad 660\n"
    front_end = instance.connect()
    instance.until("active")
    assert instance.show("StatusText") == f"Waiting for a front end of {NAME}"
    wait_until(lambda: instance.asked("status")["phase"] == "connected", PATIENCE)
    status = instance.asked("status")
    assert (status["device"], status["front_end"]) == ("loop", {"pid": front_end, "uid": 0})
    assert instance.asked("info")["name"] == NAME
    assert NAME in vm.output("vdpactl", "backends")
    # It goes, and the next one finds the same process.
    pid = instance.show("MainPID")
    vm.ask("kill", pid=front_end, number=9)
    wait_until(lambda: instance.asked("status")["phase"] == "waiting", PATIENCE)
    instance.connect()
    wait_until(lambda: instance.asked("status")["phase"] == "connected", PATIENCE)
    assert (instance.show("MainPID"), instance.show("NRestarts")) == (pid, "0")


def test_a_stop_leaves_the_socket_only(instance: Instance) -> None:
    vm = instance.vm
    instance.service.systemctl("start", UNIT)
    assert vm.output("stat", "-c", "%U %a", str(FOLDER)) == "vdpad 755\n"
    assert set(vm.output("ls", str(FOLDER)).split()) >= {"control", "io.vdpad"}
    instance.service.systemctl("stop", UNIT)
    assert (instance.show("ActiveState"), instance.show("Result")) == ("inactive", "success")
    assert set(vm.output("ls", str(FOLDER)).split()) <= {"state"}
    assert vm.run("test", "-S", SOCKET).code == 0
    instance.service.systemctl("stop", SOCKET_UNIT)
    assert vm.run("test", "-e", SOCKET).code == 1


def test_one_that_is_killed_comes_back(instance: Instance) -> None:
    instance.connect()
    instance.until("active")
    before = instance.show("MainPID")
    instance.vm.output("kill", "-KILL", before)
    wait_until(lambda: instance.show("NRestarts") == "1", PATIENCE, said=instance.journal)
    instance.until("active")
    assert instance.show("MainPID") != before
    assert instance.asked("status")["phase"] in ("waiting", "connected")


def test_its_privileges_are_none(instance: Instance) -> None:
    instance.service.systemctl("start", UNIT)
    status = instance.vm.output("cat", f"/proc/{instance.show('MainPID')}/status")
    told = dict(line.split(":\t", 1) for line in status.splitlines())
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(told[key], 16) == 0
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    uid = instance.vm.output("id", "-u", "vdpad").strip()
    assert set(told["Uid"].split()) == {uid}
