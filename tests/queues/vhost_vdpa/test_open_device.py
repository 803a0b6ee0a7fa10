"""A device's steps, in their order and out of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa import lifecycle as lifecycle_module
from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, OutOfOrder, Unsupported
from vdpad.queues.vhost_vdpa.lifecycle import DevicePhase
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses

from .fake_kernel import OFFERED, FakeKernel, FakeNode

RING = Vring(SplitAddresses(64, 0x10000, 0x11000, 0x12000), base=3, kick=8, call=9)


# --- the whole way ---


def test_what_the_kernel_is_told_in_order(kernel: FakeKernel, device: OpenDevice) -> None:
    """An order that Linux's drivers have been seen to take (tests/vm)."""
    device.negotiate(OFFERED)
    space = device.isolate_control_queue()
    device.iotlb.map(space, Region(0x100000, 0x1000), 0x7000)
    device.vrings.set(0, RING)
    device.vrings.set(device.control_queue, RING)
    device.vrings.enable(device.control_queue)
    device.start()
    device.vrings.enable(0)
    ring = ["SET_VRING_CALL", "SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]
    assert kernel.steps() == [
        *("SET_OWNER", "SET_BACKEND_FEATURES"),
        *("SET_STATUS", "SET_STATUS", "SET_FEATURES", "SET_STATUS", "SET_GROUP_ASID"),
        *(*ring, *ring, "SET_VRING_ENABLE", "SET_STATUS", "SET_VRING_ENABLE"),
    ]
    assert [each[0] for each in kernel.told("SET_STATUS")] == [1, 3, 11, 15]
    assert [uapi.VRING_STATE.unpack(each) for each in kernel.told("SET_VRING_ENABLE")] == [
        *((4, 1), (0, 1)),
    ]
    assert device.phase is DevicePhase.RUNNING


def test_all_backend_features_that_are_known_are_accepted(kernel: FakeKernel) -> None:
    novel = BackendFeature(1 << 40)
    kernel.backend_features = BackendFeature.IOTLB_MSG_V2 | BackendFeature.RESUME | novel
    device = OpenDevice(FakeNode(kernel))
    assert device.backend_features == BackendFeature.IOTLB_MSG_V2 | BackendFeature.RESUME
    assert kernel.told("SET_BACKEND_FEATURES") == [uapi.U64.pack(1 << 1 | 1 << 5)]


def test_a_device_starts_again_on_the_same_node(kernel: FakeKernel, device: OpenDevice) -> None:
    for _ in range(2):
        device.negotiate(OFFERED)
        device.vrings.set(0, RING)
        device.vrings.enable(0)
        device.start()
        device.reset()
        assert (device.phase, device.status()) == (DevicePhase.RESET, DeviceStatus(0))
    device.close()
    assert kernel.closed == 1


# --- opening ---


def test_another_kind_of_device_is_let_go_of(kernel: FakeKernel) -> None:
    kernel.device_id = 2
    with pytest.raises(DeviceRefused, match="got virtio device ID 2"):
        OpenDevice(FakeNode(kernel))
    assert kernel.closed == 1


def test_config_is_read_and_written(kernel: FakeKernel, device: OpenDevice) -> None:
    assert device.config() == kernel.config
    device.set_config(6, b"\1\0")
    assert kernel.told("SET_CONFIG") == [bytes([6, 0, 0, 0, 2, 0, 0, 0, 1, 0])]
    device.set_config_call(5)
    device.set_config_call(None)
    assert kernel.told("SET_CONFIG_CALL") == [uapi.FD.pack(5), uapi.FD.pack(-1)]


# --- negotiation ---


def test_features_that_are_not_offered_are_refused_before_a_driver_masks_them_out(
    kernel: FakeKernel, device: OpenDevice
) -> None:
    with pytest.raises(DeviceRefused, match="got beside them RSS"):
        device.negotiate(OFFERED | {Feature.RSS})
    assert device.phase is DevicePhase.RESET
    assert "SET_FEATURES" not in kernel.steps()


@pytest.mark.parametrize("bit", [DeviceStatus.FEATURES_OK, DeviceStatus.DRIVER])
def test_a_device_that_does_not_agree_has_failed(
    kernel: FakeKernel, device: OpenDevice, bit: DeviceStatus
) -> None:
    kernel.refused_bits = bit
    with pytest.raises(DeviceRefused, match=f"after {bit.name}"):
        device.negotiate(OFFERED)
    assert device.phase is DevicePhase.FAILED
    with pytest.raises(OutOfOrder, match="negotiate: expected a device that is reset, it is fail"):
        device.negotiate(OFFERED)
    kernel.refused_bits = 0
    device.reset()
    device.negotiate(OFFERED)


def test_a_device_that_does_not_start_has_failed(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    kernel.refused_bits = DeviceStatus.DRIVER_OK
    with pytest.raises(DeviceRefused, match="after DRIVER_OK, got 0x0b"):
        negotiated.start()
    assert negotiated.phase is DevicePhase.FAILED


def test_the_cvq_follows_the_data_queues(kernel: FakeKernel, device: OpenDevice) -> None:
    device.negotiate(OFFERED)
    assert device.control_queue == 4
    device.reset()
    device.negotiate(OFFERED - {Feature.MQ})
    assert device.control_queue == 2


def test_more_pairs_than_queues_are_told(kernel: FakeKernel, device: OpenDevice) -> None:
    kernel.queues = 3
    with pytest.raises(DeviceRefused, match="expected virtqueue 4 to be the CVQ, got 3"):
        device.negotiate(OFFERED)
    device.reset()
    # Without a CVQ it does not matter which queue would be it.
    device.negotiate(OFFERED - {Feature.CTRL_VQ})


def test_a_kernel_that_tells_no_count(kernel: FakeKernel, device: OpenDevice) -> None:
    kernel.queues = 3
    kernel.unsupported = frozenset({"GET_VQS_COUNT"})
    device.negotiate(OFFERED)
    assert device.control_queue == 4


# --- the CVQ's address space ---


def test_the_cvq_is_isolated_where_its_group_is_its_own(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    assert negotiated.isolate_control_queue() == 1
    assert kernel.told("SET_GROUP_ASID") == [uapi.VRING_STATE.pack(1, 1)]


@pytest.mark.parametrize(
    "what",
    [
        {"address_spaces": 1},
        {"groups": {}},
        {"groups": {3: 1, 4: 1}},
        {"backend_features": BackendFeature.IOTLB_MSG_V2},
        {"unsupported": frozenset({"GET_AS_NUM"})},
    ],
    ids=["one space", "one group", "shared group", "no ASID", "an older kernel"],
)
def test_else_it_stays_where_all_are(what: dict[str, object]) -> None:
    kernel = FakeKernel(**what)  # type: ignore[arg-type]
    device = OpenDevice(FakeNode(kernel))
    device.negotiate(OFFERED)
    assert device.isolate_control_queue() == 0
    assert "SET_GROUP_ASID" not in kernel.steps()


# --- standing still ---


def test_suspended_and_resumed(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    negotiated.start()
    negotiated.suspend()
    suspended = negotiated.phase
    negotiated.resume()
    assert (suspended, negotiated.phase) == (DevicePhase.SUSPENDED, DevicePhase.RUNNING)
    assert kernel.steps()[-2:] == ["SUSPEND", "RESUME"]


def test_what_a_driver_cannot_leaves_the_device_as_it_was(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    negotiated.start()
    kernel.unsupported = frozenset({"SUSPEND"})
    with pytest.raises(Unsupported, match=r"SUSPEND: .*; the kernel or the device's driver does"):
        negotiated.suspend()
    running = negotiated.phase
    kernel.unsupported = frozenset({"RESUME"})
    negotiated.suspend()
    with pytest.raises(Unsupported, match="RESUME"):
        negotiated.resume()
    assert (running, negotiated.phase) == (DevicePhase.RUNNING, DevicePhase.SUSPENDED)


# --- reset ---


def test_a_reset_is_waited_for(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    """virtio 1.4, 4.1.4.3.2: until the status reads 0."""
    kernel.resets_after = 3
    negotiated.reset()
    assert (kernel.resets_after, kernel.status) == (0, 0)


def test_but_not_forever(
    kernel: FakeKernel, negotiated: OpenDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle_module, "_MAX_RESET_SECONDS", 0.0)
    kernel.resets_after = 1 << 60
    with pytest.raises(DeviceRefused, match="expected device status 0 within"):
        negotiated.reset()
    assert negotiated.phase is DevicePhase.FAILED


# --- out of order: what the kernel would take without a word ---

STEPS: dict[str, Callable[[OpenDevice], object]] = {
    "negotiate": lambda device: device.negotiate(OFFERED),
    "start": lambda device: device.start(),
    "suspend": lambda device: device.suspend(),
    "resume": lambda device: device.resume(),
    "control_queue": lambda device: device.control_queue,
    "isolate_control_queue": lambda device: device.isolate_control_queue(),
    "vrings.set": lambda device: device.vrings.set(0, RING),
    "vrings.base": lambda device: device.vrings.base(0),
    "vrings.largest": lambda device: device.vrings.largest(0),
    "vrings.enable": lambda device: device.vrings.enable(0),
    "vrings.disable": lambda device: device.vrings.disable(0),
    "vrings.set_kick": lambda device: device.vrings.set_kick(0, 8),
    "vrings.set_call": lambda device: device.vrings.set_call(0, 9),
}
UP = {"control_queue"} | {step for step in STEPS if step.startswith("vrings.")}
ALLOWED = {
    DevicePhase.RESET: {"negotiate"},
    DevicePhase.NEGOTIATED: UP | {"start", "isolate_control_queue"},
    DevicePhase.RUNNING: UP - {"vrings.set", "vrings.base"} | {"suspend"},
    DevicePhase.SUSPENDED: UP | {"resume"},
    DevicePhase.FAILED: set(),
}


def brought_to(phase: DevicePhase) -> tuple[OpenDevice, FakeKernel]:
    """A device in this phase, whose queue 0 has a ring where queues can have one."""
    kernel = FakeKernel()
    device = OpenDevice(FakeNode(kernel))
    if phase is DevicePhase.RESET:
        return device, kernel
    device.negotiate(OFFERED)
    device.vrings.set(0, RING)
    if phase is DevicePhase.FAILED:
        kernel.refused_bits = DeviceStatus.DRIVER_OK
        with pytest.raises(DeviceRefused):
            device.start()
    if phase in (DevicePhase.RUNNING, DevicePhase.SUSPENDED):
        device.start()
    if phase is DevicePhase.SUSPENDED:
        device.suspend()
    return device, kernel


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("phase", DevicePhase)
def test_each_step_in_each_phase(phase: DevicePhase, step: str) -> None:
    device, kernel = brought_to(phase)
    assert device.phase is phase
    before = list(kernel.said)
    if step in ALLOWED[phase]:
        STEPS[step](device)
        return
    with pytest.raises(OutOfOrder, match=f"^{step}: expected a device that is .*{phase.value}$"):
        STEPS[step](device)
    assert (device.phase, kernel.said) == (phase, before)


@pytest.mark.parametrize("phase", DevicePhase)
def test_a_reset_from_anywhere(phase: DevicePhase) -> None:
    device, kernel = brought_to(phase)
    kernel.refused_bits = 0
    device.reset()
    device.negotiate(OFFERED)
    assert device.phase is DevicePhase.NEGOTIATED
