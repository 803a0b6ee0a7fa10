"""An instance of the back end: started by its socket, asked as an operator does, and stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.waiting import wait_until
from tests.vm.host import Caller
from tests.vm.machine import Machine
from vdpad.wire.addresses import BACK_ENDS

from .service import Service, give_time

SOFTWARE = "/usr/bin/vdpad-vhost-user --name %i --software --stay"
CONNECT = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    "s.sendall(bytes([1, 0, 0, 0, 1] + [0] * 7)); print(flush=True); time.sleep(3600)"
)
"""Connects, asks for the features and says nothing more."""


@dataclass(frozen=True)
class Instance:
    """The units of one instance, as they were installed but for the time that a start may take."""

    service: Service
    name: str

    @property
    def vm(self) -> Machine:
        """Where it runs."""
        return self.service.vm

    @property
    def unit(self) -> str:
        """Its service."""
        return f"vdpad-vhost-user@{self.name}.service"

    @property
    def socket_unit(self) -> str:
        """What starts that."""
        return f"vdpad-vhost-user@{self.name}.socket"

    @property
    def socket(self) -> str:
        """Where a front end connects."""
        return f"/run/vdpad/vhost-user-{self.name}.sock"

    @property
    def folder(self) -> str:
        """Of its control sockets, and of what is kept."""
        return str(BACK_ENDS / self.name)

    def show(self, name: str) -> str:
        """A property of its service."""
        return self.service.systemctl("show", "--value", "-p", name, self.unit).strip()

    def until(self, state: str) -> None:
        """Returns when its service is so."""
        wait_until(lambda: self.show("ActiveState") == state, said=self.journal)

    def journal(self) -> str:
        """What it has said."""
        return self.vm.output("journalctl", "-u", self.unit, "-n", "40", "--no-pager")

    def connect(self) -> int:
        """A front end that stays; its pid."""
        argv = ["python3", "-I", "-c", CONNECT, self.socket]
        pid: int = self.vm.ask("spawn", argv=argv, stderr="/run/front-end")
        return pid

    def asked(self, command: str) -> dict[str, object]:
        """What vdpactl tells of it."""
        done = self.service.vdpactl("--backend", self.name, command, "--json")
        assert done.code == 0, (done, self.journal())
        told: dict[str, object] = json.loads(done.out)
        return told


@contextmanager
def listening(service: Service, name: str, command: str = "") -> Iterator[Instance]:
    """One whose socket listens, for the time of the context.

    Args:
        service: of the machine.
        name: of the instance.
        command: what is run in the place of the unit's own.
    """
    instance, vm = Instance(service, name), service.vm
    give_time(vm, instance.unit, f"ExecStart=\nExecStart={command}\n" if command else "")
    service.systemctl("daemon-reload")
    service.systemctl("start", instance.socket_unit)
    yield instance
    service.systemctl("stop", instance.socket_unit, instance.unit)
    vm.output("rm", "-rf", f"/run/systemd/system/{instance.unit}.d", instance.folder)
    service.systemctl("daemon-reload")


@pytest.fixture
def instance(booted: Service) -> Iterator[Instance]:
    """One with a software device."""
    with listening(booted, "net0", SOFTWARE) as one:
        yield one


@pytest.fixture
def node(booted: Service) -> Iterator[str]:
    """The node of sim0, which is the service's, as a udev rule would have it."""
    (path,) = booted.vm.output("sh", "-c", "ls -d /sys/bus/vdpa/devices/sim0/vhost-vdpa-*").split()
    node = f"/dev/{path.rpartition('/')[2]}"
    booted.vm.output("chown", "vdpad", node)
    yield node
    booted.vm.output("chown", "root", node)


def test_the_first_front_end_starts_it(instance: Instance) -> None:
    vm = instance.vm
    assert instance.show("ActiveState") == "inactive"
    assert vm.output("stat", "-c", "%U:%G %a", instance.socket) == "root:vdpad 660\n"
    front_end = instance.connect()
    instance.until("active")
    assert instance.show("StatusText") == f"Waiting for a front end of {instance.name}"
    wait_until(lambda: instance.asked("status")["phase"] == "connected")
    status = instance.asked("status")
    assert (status["device"], status["front_end"]) == ("loop", {"pid": front_end, "uid": 0})
    assert instance.asked("info")["name"] == instance.name
    by_datagram = Caller(vm, f"{instance.folder}/control")
    assert by_datagram.result("info")["name"] == instance.name
    assert instance.name in vm.output("vdpactl", "backends")
    # It goes, and the next one finds the same process.
    pid = instance.show("MainPID")
    vm.ask("kill", pid=front_end, number=9)
    wait_until(lambda: instance.asked("status")["phase"] == "waiting")
    instance.connect()
    wait_until(lambda: instance.asked("status")["phase"] == "connected")
    assert (instance.show("MainPID"), instance.show("NRestarts")) == (pid, "0")


def test_a_stop_leaves_the_socket_only(instance: Instance) -> None:
    vm = instance.vm
    instance.service.systemctl("start", instance.unit)
    assert vm.output("stat", "-c", "%U %a", instance.folder) == "vdpad 755\n"
    assert set(vm.output("ls", instance.folder).split()) >= {"control", "io.vdpad"}
    instance.service.systemctl("stop", instance.unit)
    assert (instance.show("ActiveState"), instance.show("Result")) == ("inactive", "success")
    assert set(vm.output("ls", instance.folder).split()) <= {"state"}
    assert vm.run("test", "-S", instance.socket).code == 0
    instance.service.systemctl("stop", instance.socket_unit)
    assert vm.run("test", "-e", instance.socket).code == 1


def test_one_that_is_killed_comes_back(instance: Instance) -> None:
    instance.connect()
    instance.until("active")
    before = instance.show("MainPID")
    instance.vm.output("kill", "-KILL", before)
    wait_until(lambda: instance.show("NRestarts") == "1", said=instance.journal)
    instance.until("active")
    assert instance.show("MainPID") != before
    assert instance.asked("status")["phase"] in ("waiting", "connected")


def test_its_privileges_are_none(instance: Instance) -> None:
    instance.service.systemctl("start", instance.unit)
    status = instance.vm.output("cat", f"/proc/{instance.show('MainPID')}/status")
    told = dict(line.split(":\t", 1) for line in status.splitlines())
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(told[key], 16) == 0
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    uid = instance.vm.output("id", "-u", "vdpad").strip()
    assert set(told["Uid"].split()) == {uid}


def test_a_vdpa_device_is_had_with_what_the_unit_allows(booted: Service, node: str) -> None:
    with listening(booted, "sim0") as instance:
        booted.systemctl("start", instance.unit)
        assert instance.asked("status")["phase"] == "waiting"
        assert instance.asked("info")["device"] == node.rpartition("/")[2]
        # It is the instance's alone.
        assert booted.sh(f"exec 3<>{node}").code != 0
    assert booted.sh(f"exec 3<>{node}").code == 0
