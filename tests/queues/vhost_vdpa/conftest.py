"""A device on a kernel of the tests' own."""

from __future__ import annotations

import pytest

from vdpad.queues.vhost_vdpa.open_device import OpenDevice

from .fake_kernel import OFFERED, FakeKernel, FakeNode


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def device(kernel: FakeKernel) -> OpenDevice:
    """Just opened."""
    return OpenDevice(FakeNode(kernel))


@pytest.fixture
def negotiated(device: OpenDevice) -> OpenDevice:
    device.negotiate(OFFERED)
    return device
