"""Nodes that cannot be opened."""

import os
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.vhost_vdpa.errors import NoSuchNode, NotPermitted, VhostVdpaError
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.open_device import OpenDevice

EACCES, ENXIO, ENOTSUPP = 13, 6, 524


def test_no_node() -> None:
    with no_descriptor_left(), pytest.raises(NoSuchNode, match=r"/nowhere: open: .*\(ENOENT\)"):
        Node(Path("/nowhere"))


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (EACCES, NotPermitted, r"open: Permission denied \(EACCES\)"),
        # Of a node that lies there, and whose device is gone.
        (ENXIO, NoSuchNode, r"\(ENXIO\); no device has this node any more"),
        # Of the kernel's own, on a host without an IOMMU.
        (ENOTSUPP, VhostVdpaError, r"\(ENOTSUPP\); its driver needs an IOMMU"),
    ],
)
def test_what_the_kernel_refuses(
    number: int, kind: type[VhostVdpaError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=message):
        Node(Path("/dev/vhost-vdpa-0"))


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/status", "/dev"])
def test_what_is_no_node_of_a_device(path: str) -> None:
    with no_descriptor_left(), pytest.raises(NoSuchNode, match="node of a vhost-vdpa device"):
        OpenDevice(Node(Path(path)))
