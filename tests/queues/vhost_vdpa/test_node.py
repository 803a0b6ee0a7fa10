"""Nodes that cannot be opened."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.vhost_vdpa.errors import NoSuchNode, NotPermitted
from vdpad.queues.vhost_vdpa.node import Node


def test_no_node() -> None:
    with no_descriptor_left(), pytest.raises(NoSuchNode, match=r"/nowhere: open: .*\(ENOENT\)"):
        Node(Path("/nowhere"))


def test_a_node_that_is_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotPermitted, match=r"open: Permission denied \(EACCES\)"):
        Node(Path("/dev/vhost-vdpa-0"))
