"""The commands of vdpactl that are of a host: its daemon, its devices, its back ends."""

import argparse
from typing import Any

from vdpad.cli import show
from vdpad.cli.adding import Add, Subparsers, add, later
from vdpad.cli.ask import ask
from vdpad.cli.options import with_original


def _info(methods: Subparsers) -> None:
    add(methods, "info", show.info, "what the daemon is and takes")


def _devices(methods: Subparsers) -> None:
    devices = add(methods, "devices", show.devices, "the vDPA devices of the daemon's host")
    devices.add_argument(
        "--management",
        action="store_true",
        help="what such devices can be made on, on this host; needs no daemon",
    )
    devices.set_defaults(run=_devices_or_management)


def _devices_or_management(arguments: argparse.Namespace) -> Any:
    if not arguments.management:
        return ask(arguments)
    later("vdpad.cli.provisioning", "show_management")(arguments)
    return arguments.run(arguments)


def _provision(methods: Subparsers) -> None:
    text = "make a vDPA device on this host that is like a guest's on its source; needs no daemon"
    provision = add(methods, "provision", later("vdpad.cli.show_devices", "provisioned"), text)
    with_original(provision)
    provision.add_argument(
        "--mgmtdev", required=True, metavar="NAME", help="what to make it on: devices --management"
    )
    provision.add_argument(
        "--name", help="of the new device; default: the source's, else the first free of vdpa0, …"
    )
    provision.add_argument(
        "--dry-run", action="store_true", help="print the `vdpa dev add` line instead"
    )
    provision.set_defaults(run=later("vdpad.cli.provisioning", "provision"))


def _deprovision(methods: Subparsers) -> None:
    text = "remove a vDPA device of this host that no process has open; needs no daemon"
    deprovision = add(
        methods, "deprovision", later("vdpad.cli.show_devices", "deprovisioned"), text
    )
    deprovision.add_argument("device", help="its vdpa name")
    deprovision.set_defaults(run=later("vdpad.cli.provisioning", "deprovision"))


def _backends(methods: Subparsers) -> None:
    shower = later("vdpad.cli.show_back_end", "back_ends")
    backends = add(methods, "backends", shower, "this host's back ends")
    backends.set_defaults(run=later("vdpad.cli.back_end", "all_back_ends"))


HOST_COMMANDS: tuple[Add, ...] = (
    _info,
    _devices,
    _provision,
    _deprovision,
    _backends,
)
