"""Whether a device is open, before something is asked for that would wait until it is closed.

`vdpa dev del` of a device that somebody has open waits for him, and with it every process of the
host that asks about vDPA, and most of those that ask any generic netlink family (`vdpa_asker`). The
kernel does not tell whether a device is open but by opening it, which it lets one process do at a
time. A device that nobody has is reset by that: it is about to go anyway. Who opens it between the
look and the removal is waited for all the same.

Source: Linux drivers/vhost/vdpa.c (vhost_vdpa_open, vhost_vdpa_remove).
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from vdpad.errors import why
from vdpad.host.sysfs import PROC, Holder, holders_of, named_holders
from vdpad.host.vdpa import VdpaError


class InUse(VdpaError):
    """A device that a process has open."""

    def __init__(self, name: str, holders: Sequence[Holder]) -> None:
        """Takes the device's name and who has it, as far as that can be seen."""
        super().__init__(
            f"{name} is open in {named_holders(holders)}; it can be removed once that is closed, "
            "and until then nobody would get an answer from vdpa netlink"
        )
        self.holders = tuple(holders)


class MayBeInUse(VdpaError):
    """A device of which it cannot be told whether a process has it open."""


def refuse_one_in_use(name: str, node: Path, proc: Path = PROC) -> None:
    """Returns where nobody has a device open; it is reset then. May sleep as long as its driver.

    Args:
        name: the device's.
        node: with which it is opened. A device without one can be open in no process.
        proc: where procfs is mounted.

    Raises:
        InUse: a process has it.
        MayBeInUse: the node cannot be opened for another reason.
    """
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUse(name, holders_of(node, proc)) from error
        raise MayBeInUse(
            f"expected to open {node}, to see that no process has {name}: {why(error)}; "
            "run this as root, where the node is"
        ) from error
