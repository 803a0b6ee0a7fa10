"""A vdpad that runs in the machine, as the tests see it."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .machine import Machine

Json = dict[str, Any]

_numbers = itertools.count(1)


def migration() -> str:
    """A name that no test has used."""
    return f"vm-{os.getpid()}-{next(_numbers)}"


def unused(what: str) -> str:
    return f"/run/{what}-{os.getpid()}-{next(_numbers)}"


def vhost_vdpa(device: str) -> Json:
    """A target, by the device's name or its node."""
    return {"kind": "vhost-vdpa", "path" if "/" in device else "device": device}


@dataclass(frozen=True)
class Caller:
    """Asks a daemon in the machine, from there."""

    vm: Machine
    socket: str

    def begin(self, method: str, **params: Any) -> int:
        """Asks without waiting for the reply."""
        return self.vm.begin("call", socket=self.socket, method=method, params=params)

    def reply(self, method: str, **params: Any) -> Json:
        """Asks, and gives whatever came."""
        reply: Json = self.vm.finish(self.begin(method, **params))
        return reply

    def result(self, method: str, **params: Any) -> Any:
        """The result of what must succeed."""
        reply = self.reply(method, **params)
        assert "result" in reply, reply
        return reply["result"]

    def refused(self, method: str, **params: Any) -> Json:
        """The message and data of what must be refused."""
        reply = self.reply(method, **params)
        assert "refused" in reply, reply
        refused: Json = reply["refused"]
        return refused


@dataclass(frozen=True)
class Started(Caller):
    """The same for a daemon that the tests have started."""

    pid: int
    log: str

    def events(self) -> list[Json]:
        """What it has logged."""
        return [json.loads(line) for line in self.vm.ask("read", path=self.log).splitlines()]

    def kill(self) -> None:
        """SIGKILL, and the end of it."""
        self.vm.ask("kill", pid=self.pid, number=signal.SIGKILL)
        assert self.vm.ask("wait", pid=self.pid) == -signal.SIGKILL

    def terminate(self) -> None:
        """SIGTERM; it must end well."""
        self.vm.ask("kill", pid=self.pid, number=signal.SIGTERM)
        assert self.vm.ask("wait", pid=self.pid) == 0, self.vm.ask("read", path=self.log)


def start(vm: Machine, *, memlock: int | None = None) -> Started:
    """Starts a daemon and waits until it listens."""
    name = unused("vdpad")
    socket, log = f"{name}.sock", f"{name}.log"
    argv = [sys.executable, "-m", "vdpad.cli.vdpad", "--socket", socket]
    pid = vm.ask("spawn", argv=argv, stderr=log, memlock=memlock)
    vm.ask("wait_for", path=log, text="listening")
    return Started(vm, socket, pid, log)


@contextmanager
def holding(vm: Machine, node: str) -> Iterator[int]:
    """Another process that has this node open, by its pid."""
    log = unused("holder")
    program = f"exec 3<>{node}; echo open; exec sleep infinity"
    pid = vm.ask("spawn", argv=["sh", "-c", program], stderr=log)
    try:
        vm.ask("wait_for", path=log, text="open")
        yield pid
    finally:
        vm.ask("kill", pid=pid, number=signal.SIGKILL)
        vm.ask("wait", pid=pid)


@functools.cache
def features_of(daemon: Caller, device: str) -> list[str]:
    """What a device offers, by name."""
    (found,) = (each for each in daemon.result("devices") if each["name"] == device)
    features: list[str] = found["features"]
    return features


def negotiated(vm: Machine, device: str) -> list[str] | None:
    """What the kernel says that was negotiated with a device; None where it is not up."""
    config = json.loads(vm.output("vdpa", "-j", "dev", "config", "show", device))
    found: list[str] | None = config["config"][device].get("negotiated_features")
    return found


def vdpactl(daemon: Caller, *arguments: str) -> tuple[int, str, str]:
    """How vdpactl ends, and what it prints."""
    done = daemon.vm.run(
        sys.executable, "-m", "vdpad.cli.vdpactl", "--socket", daemon.socket, *arguments
    )
    return done.code, done.out, done.err
