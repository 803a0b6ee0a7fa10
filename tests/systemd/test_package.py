"""The Debian packages under systemd: installed by apt, upgraded under what runs, purged."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.install.packages import NAMES as ALL_NAMES
from tests.install.packages import newer
from tests.install.packages import packages as packages
from tests.support.waiting import wait_until
from tests.vm.host import Caller, Json, migration, negotiated, vhost_vdpa
from tests.vm.machine import Machine
from tests.vm.test_restore import NO_FILTER, assert_restored, state_for

from .machine import machine, why_unavailable
from .service import DROP_INS, RULES, Service, give_time
from .test_back_end import SOFTWARE, Instance

NAMES = ("vdpad", "vdpad-vhost-user")
SOCKETS = ("vdpad.socket", "vdpad-varlink.socket")

# Where this host may be a container that starts nothing; and what needs a network.
NOT_HERE = ("/usr/sbin/policy-rc.d", "/etc/apt/sources.list", "/etc/apt/sources.list.d")

DATABASE = "/var/lib/dpkg"
NEEDED = ("libc6", "libgcc-s1", "libstdc++6", "python3", "systemd")
FIELDS = ("Package", "Status", "Version", "Architecture", "Maintainer", "Description")


@pytest.fixture
def bare() -> Iterator[Service]:
    """A machine that has no vdpad yet."""
    skip_or_fail(why_unavailable())
    with machine() as vm:
        vm.output("rm", "-rf", *NOT_HERE)
        know_few(vm)
        give_time(vm, "vdpad.service")
        start = f"ExecStart=\nExecStart={SOFTWARE}\n"
        give_time(vm, "vdpad-vhost-user@net0.service", start)
        yield Service(vm)


def know_few(vm: Machine) -> None:
    """Leaves of dpkg's database what vdpad's packages depend on.

    A whole host's takes an emulated processor seconds, each time that apt or dpkg reads it, and the
    triggers of its packages take minutes.
    """
    paragraph = "".join(f"{each}: ${{{each}}}\n" for each in FIELDS) + "\n"
    status = vm.output("dpkg-query", "-W", "-f", paragraph, *NEEDED)
    vm.output("mount", "-t", "tmpfs", "none", DATABASE)
    vm.output("mkdir", *(f"{DATABASE}/{each}" for each in ("info", "updates", "triggers")))
    vm.ask("write", path=f"{DATABASE}/status", text=status)
    vm.output("touch", *(f"{DATABASE}/info/{each}.list" for each in NEEDED))


def apt(service: Service, command: str, *what: str | Path) -> None:
    """As an operator has it do something, with nobody to answer its questions."""
    done = service.sh(shlex.join(["apt-get", "-y", command, *map(str, what)]))
    assert done.code == 0, (done.out, done.err)


def with_front_end(service: Service) -> tuple[Instance, Json]:
    """A back end that a front end has started, which stays connected; and what it tells of it."""
    back_end = Instance(service, "net0")
    service.systemctl("start", back_end.socket_unit)
    back_end.connect()
    service.systemctl("start", back_end.unit)  # begun by then; it returns when it is ready
    control = Caller(service.vm, f"{back_end.folder}/control")
    wait_until(lambda: control.result("status")["phase"] == "connected")
    return back_end, control.result("status")


def test_what_runs_goes_on_through_an_upgrade_and_a_purge_leaves_nothing(
    bare: Service, packages: Path, tmp_path: Path
) -> None:
    vm, daemon = bare.vm, bare.daemon
    apt(bare, "install", *(packages / f"{each}.deb" for each in NAMES))
    assert bare.systemctl("is-active", *SOCKETS).split() == ["active", "active"]
    assert bare.pid == 0  # until somebody asks
    bare.give_devices()
    name = migration()
    state = state_for(daemon, "vp0", {"vlans": [42]})
    report = daemon.result("restore", migration=name, state=state, target=vhost_vdpa("vp0"))
    assert_restored(report, 1)
    assert vm.rx_filter().vlan_table == (42,)
    back_end, served = with_front_end(bare)

    kept = vm.rx_filter(), negotiated(vm, "vp0")
    before, serves = bare.pid, back_end.show("MainPID")
    later = (newer(packages / f"{each}.deb", tmp_path) for each in ALL_NAMES)
    apt(bare, "install", "--only-upgrade", *later)
    known = vm.output("dpkg-query", "-W", *ALL_NAMES).splitlines()
    assert [line.split()[0] for line in known if "later" in line] == list(NAMES)
    assert bare.pid not in (0, before)
    assert (vm.rx_filter(), negotiated(vm, "vp0")) == kept
    assert daemon.result("status", migration=name)["report"] == report
    assert (back_end.show("MainPID"), back_end.asked("status")) == (serves, served)

    apt(bare, "remove", *NAMES)
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
    assert vm.run("pgrep", "-u", "vdpad").code == 1
    apt(bare, "purge", *NAMES)
    assert_nothing_left(bare)


def assert_nothing_left(service: Service) -> None:
    """But the user vdpad, whose files may be somewhere."""
    vm = service.vm
    vm.output("rm", "-rf", DROP_INS, RULES)  # the operator's
    service.sh("rm -r /run/systemd/system/vdpad*")  # and this test's
    vm.output("systemctl", "daemon-reload")
    for listed in ("list-unit-files", "list-units"):
        assert vm.run("systemctl", listed, "--all", "--no-legend", "vdpad*").out == "", listed
    folders = ("/etc", "/run", "/var/lib", "/usr/bin", "/usr/lib/vdpad", "/usr/lib/systemd")
    assert vm.run("find", *folders, "-name", "*vdpad*").out == ""
    assert vm.run("dpkg-query", "-W", "vdpad*").out == ""
