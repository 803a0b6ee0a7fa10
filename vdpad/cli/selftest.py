"""The selftest of a device of this host, or of a software device: from the command line to values.

What is tested and how is vdpad/conformance's; here are the device, and why it cannot be had.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdpad.cli.failures import CannotTest, Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.progress import shown
from vdpad.cli.state_files import read_file
from vdpad.cli.terminal import NotGiven
from vdpad.conformance import suite
from vdpad.conformance.cases.table import CASES
from vdpad.conformance.comparison import compared
from vdpad.conformance.device_under_test import DeviceUnderTest, Origin
from vdpad.conformance.formats.junit import junit
from vdpad.conformance.formats.page import page
from vdpad.conformance.formats.tap import tap
from vdpad.conformance.self_test import (
    MAX_SIZE,
    NoSelfTest,
    SelfTest,
    read_self_test,
    self_test_of,
)
from vdpad.conformance.software import SoftwareUnderTest
from vdpad.conformance.vhost_vdpa import VhostVdpaUnderTest
from vdpad.daemon.configuration import BadSettings, load_settings
from vdpad.daemon.faults import refusal_of
from vdpad.errors import VdpadError, why
from vdpad.host import sysfs, vdpa_netlink
from vdpad.host.vdpa import VdpaError
from vdpad.queues.vhost_vdpa.errors import (
    NoControlQueue,
    NodeBusy,
    NoNetworkDevice,
    NoSuchNode,
    NotPermitted,
)
from vdpad.service.envelope import error_of
from vdpad.service.refusal import Kind, Refusal
from vdpad.wire.unreachable import who_may_use

_FORMATS: Mapping[str, Callable[[SelfTest], str]] = {"junit": junit, "tap": tap, "html": page}
"""By the options that name their files."""


def run(arguments: Namespace) -> dict[str, Any]:
    """The command: the test's result as plain values.

    Raises:
        CannotTest: the device cannot be had.
        Usage: the settings or the earlier result cannot be used.
        NotGiven: a file could not be written.
    """
    before = None if arguments.compare is None else _earlier(arguments.compare)
    done = _tested(arguments)
    if before is not None:
        done = done.model_copy(update={"comparison": compared(before, done)})
    for name, write in _FORMATS.items():
        _write(getattr(arguments, name), write, done)
    return done.model_dump(mode="json", exclude={"comparison"} if before is None else None)


def _write(file: Path | None, write: Callable[[SelfTest], str], result: SelfTest) -> None:
    if file is None:
        return
    try:
        file.write_text(write(result), encoding="utf-8")
    except OSError as error:
        raise NotGiven(f"{file}: {why(error)}; the result could not be written") from error


def _earlier(name: str) -> SelfTest:
    data = read_file(name, lambda file: file.read(MAX_SIZE + 1))
    if len(data) > MAX_SIZE:
        raise Usage(f"{name}: expected at most {MAX_SIZE} bytes of a selftest's result")
    try:
        return read_self_test(data)
    except NoSelfTest as error:
        raise Usage(f"{name}: {error}") from error


def _tested(arguments: Namespace) -> SelfTest:
    stage = suite.SuiteStage()
    name = arguments.software or arguments.device
    software = None if arguments.software is None else _software(arguments)

    async def test() -> SelfTest:
        device = software or await _of_host(arguments.device)
        cases = CASES.values()
        return self_test_of(await suite.run(device, cases, rounds=arguments.repeat, stage=stage))

    try:
        with shown(lambda: f"{name}: {stage.now}"):
            return run_interruptibly(test())
    except VdpadError as error:
        raise CannotTest(**error_of(_refusal(name, error))) from error


# --- the device ---


def _software(arguments: Namespace) -> DeviceUnderTest:
    try:
        devices = load_settings(arguments.config).software
    except BadSettings as error:
        raise Usage(str(error)) from error
    for each in devices:
        if each.name == arguments.software:
            return SoftwareUnderTest(each.name, each.device())
    there = ", ".join(each.name for each in devices) or "none"
    message = f"no software device is named {arguments.software!r}; the settings have {there}"
    raise CannotTest(**error_of(Refusal(Kind.NO_SUCH_DEVICE, message)))


async def _of_host(device: str) -> DeviceUnderTest:
    """The device of this name or node.

    Raises:
        NoSuchNode: there is none.
    """
    node = _node(device)
    name = device if "/" not in device else sysfs.name_of_node(Path(device)) or device
    mgmtdev = parent_driver = None
    # Who it is adds nothing to what it does: a test needs neither sysfs nor netlink for that.
    with suppress(VdpaError):
        parent_driver = sysfs.parent_driver_of(name)
        mgmtdev = (await vdpa_netlink.device(name)).mgmtdev
    return VhostVdpaUnderTest(node, Origin(name, str(node), parent_driver, mgmtdev))


def _node(device: str) -> Path:
    name = sysfs.name_of_node(Path(device)) if "/" in device else device
    node = None if name is None else sysfs.node_of(name)
    if node is None:
        raise NoSuchNode("expected a device with the driver vhost_vdpa, or the path of its node")
    return node


def _refusal(device: str, error: VdpadError) -> Refusal:
    """Why a device cannot be tested, of the kind that the daemon tells where it cannot have one."""
    match error:
        case NodeBusy():
            holders = sysfs.holders_of(_node(device))
            return Refusal(
                Kind.BUSY,
                f"{device} is in use by {sysfs.named_holders(holders)}",
                holders=[asdict(each) for each in holders],
            )
        case NotPermitted():
            return Refusal(Kind.NOT_ALLOWED, f"{device}: {error}; {who_may_use(_node(device))}")
        case NoControlQueue() | NoNetworkDevice():
            return Refusal(Kind.NO_SUCH_DEVICE, f"{device}: {error}")
    found = refusal_of(error)
    kind, data = (Kind.INTERNAL, {}) if found is None else (found.kind, found.data)
    return Refusal(kind, f"{device}: {error}", **data)
