"""The descriptor store: what a device goes in as, it comes out as, and nothing is left over."""

import fcntl
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.descriptors import open_descriptors
from vdpad.daemon.devices.store import DESCRIPTORS_PER_DEVICE, DescriptorStore, Stored
from vdpad.queues.vhost_vdpa.adopted import AdoptedDevice, RingWords
from vdpad.queues.vhost_vdpa.device import DeviceDescriptors
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, VhostVdpaError
from vdpad.queues.vhost_vdpa.memory import SharedMemory, control_geometry
from vdpad.service.systemd import notify as systemd_module
from vdpad.service.systemd.notify import Notifier
from vdpad.virtio.packed_ring import DESCRIPTOR
from vdpad.virtio.split_ring import SplitGeometry, lay_out

GEOMETRY = lay_out(64, control_geometry(64).memory)
FEATURES = frozenset({5, 17, 29, 32})


class Systemd(Notifier):
    """Holds what it is given, until it is told to let go."""

    def __init__(self) -> None:
        super().__init__("@somebody")
        self.held: list[tuple[str, int]] = []
        self.barriers: list[int] = []
        self.is_slow = False

    def _tell(self, message: str, *fds: int, patience: float = 0) -> None:
        said = dict(line.split("=") for line in message.splitlines())
        if "FDSTORE" in said:
            assert (said["FDSTORE"], said["FDPOLL"]) == ("1", "0")
            assert len(said["FDNAME"]) < 256
            assert ":" not in said["FDNAME"]
            self.held += [(said["FDNAME"], os.dup(fd)) for fd in fds]
        elif "FDSTOREREMOVE" in said:
            for name, fd in list(self.held):
                if name == said["FDNAME"]:
                    self.held.remove((name, fd))
                    os.close(fd)
        else:
            assert said == {"BARRIER": "1"}
            if self.is_slow:
                self.barriers += [os.dup(fd) for fd in fds]

    def hand_over(self) -> list[tuple[str, int]]:
        """What the next daemon gets: copies, in no order."""
        handed = [(name, os.dup(fd)) for name, fd in self.held]
        random.Random(3).shuffle(handed)
        return handed

    def close(self) -> None:
        for fd in [*(fd for _, fd in self.held), *self.barriers]:
            os.close(fd)


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    before = open_descriptors()
    made = Systemd()
    yield made
    made.close()
    assert open_descriptors().keys() <= before.keys()


@pytest.fixture
def made_of() -> Iterator[DeviceDescriptors]:
    fds = [os.eventfd(number) for number in range(4)]
    yield DeviceDescriptors(*fds)
    for fd in fds:
        os.close(fd)


def put(store: DescriptorStore, made_of: DeviceDescriptors, device: str = "vdpa0") -> str:
    return store.put(
        device=device,
        node="/dev/vhost-vdpa-0",
        owner="vm-1",
        geometry=GEOMETRY,
        features=FEATURES,
        descriptors=made_of,
    )


def count(fd: int) -> int:
    """What an eventfd was made with: tells one from another."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("eventfd-count:"))
    return int(line.split()[1], 16)


def close(stored: Stored) -> None:
    for fd in stored.descriptors:
        os.close(fd)


def test_a_device_comes_out_as_it_went_in(systemd: Systemd, made_of: DeviceDescriptors) -> None:
    store = DescriptorStore(systemd)
    keys = [put(store, made_of, device) for device in ("vdpa0", "a:strange.name")]
    assert len(systemd.held) == 2 * DESCRIPTORS_PER_DEVICE
    found = list(store.take(systemd.hand_over()))
    assert {each.device: each.key for each in found} == dict(
        zip(("vdpa0", "a:strange.name"), keys, strict=True)
    )
    for each in found:
        assert (each.node, each.owner) == ("/dev/vhost-vdpa-0", "vm-1")
        assert (each.geometry, each.features) == (GEOMETRY, FEATURES)
        assert [count(fd) for fd in each.descriptors] == [0, 1, 2, 3]
        close(each)
        store.drop(each.key)
    assert systemd.held == []


def test_what_else_is_inherited_is_left_alone(systemd: Systemd, made_of: DeviceDescriptors) -> None:
    store = DescriptorStore(systemd)
    socket = os.eventfd(9)
    assert list(store.take([("api", socket), ("", socket), ("keptnot", socket)])) == []
    assert count(socket) == 9
    os.close(socket)


@pytest.mark.parametrize("missing", range(DESCRIPTORS_PER_DEVICE))
def test_half_a_device_is_let_go(
    systemd: Systemd, made_of: DeviceDescriptors, missing: int
) -> None:
    store = DescriptorStore(systemd)
    put(store, made_of)
    _, fd = systemd.held.pop(missing)
    os.close(fd)
    with capture_logs() as logs:
        assert list(store.take(systemd.hand_over())) == []
    assert [log["event"] for log in logs] == ["stored device let go"]
    assert systemd.held == []


@pytest.mark.parametrize(
    "description",
    [b"", b"{}", b"\xff", b"[" * 70000, b'{"version": 2}', b'{"version": 1, "device": "vdpa0"}'],
)
def test_a_description_of_another_hand(
    systemd: Systemd, made_of: DeviceDescriptors, description: bytes
) -> None:
    store = DescriptorStore(systemd)
    put(store, made_of)
    name, fd = systemd.held.pop()
    assert name.endswith(".description")
    os.close(fd)
    fd = os.memfd_create("forged")
    os.write(fd, description)
    systemd.held.append((name, fd))
    with capture_logs() as logs:
        assert list(store.take(systemd.hand_over())) == []
    assert [log["event"] for log in logs] == ["stored device let go"]
    assert systemd.held == []


def test_a_name_that_comes_twice(systemd: Systemd, made_of: DeviceDescriptors) -> None:
    store = DescriptorStore(systemd)
    put(store, made_of)
    (found,) = store.take([*systemd.hand_over(), *systemd.hand_over()])
    close(found)


def test_what_is_described_stays_so(systemd: Systemd, made_of: DeviceDescriptors) -> None:
    put(DescriptorStore(systemd), made_of)
    seals = fcntl.fcntl(systemd.held[-1][1], fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_WRITE


def test_a_systemd_that_does_not_read_holds_nobody_up_for_ever(
    systemd: Systemd, made_of: DeviceDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd_module, "_BARRIER_SECONDS", 0.01)
    store = DescriptorStore(systemd)
    key = put(store, made_of)
    systemd.is_slow = True
    with capture_logs() as logs:
        store.drop(key)
    assert [log["event"] for log in logs] == ["systemd is slow to let go of descriptors"]


def test_without_systemd_there_is_no_store(made_of: DeviceDescriptors) -> None:
    store = DescriptorStore(Notifier(None))
    assert not store.is_present
    store.drop(put(store, made_of))


# --- what comes out may be no device any more ---


def test_a_node_that_is_none() -> None:
    before = open_descriptors()
    memory = SharedMemory(GEOMETRY.memory.size)
    made_of = DeviceDescriptors(os.eventfd(0), os.dup(memory.fd), os.eventfd(0), os.eventfd(0))
    memory.close()
    with pytest.raises(VhostVdpaError, match="GET_FEATURES"):
        AdoptedDevice(Path("/dev/vhost-vdpa-0"), made_of, GEOMETRY, FEATURES)
    assert open_descriptors().keys() <= before.keys()


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes any descriptor pass for a device's node; what its status is set to."""
    written: list[int] = []
    for name, value in (("get_features", FEATURES), ("get_config", bytes(64)), ("get_status", 15)):
        path = f"vdpad.queues.vhost_vdpa.node.Node.{name}"
        monkeypatch.setattr(path, lambda _, value=value: value)
    setter = "vdpad.queues.vhost_vdpa.node.Node.set_status"
    monkeypatch.setattr(setter, lambda _, status: written.append(status))
    return written


def _made_of(memory: int) -> DeviceDescriptors:
    return DeviceDescriptors(os.eventfd(0), memory, os.eventfd(0), os.eventfd(0))


def test_a_device_is_told_by_its_ring_and_can_be_reset(statuses: list[int]) -> None:
    before = open_descriptors()
    shared = SharedMemory(GEOMETRY.memory.size)
    memory = os.dup(shared.fd)
    shared.close()
    for at, index in ((GEOMETRY.available, 7), (GEOMETRY.used, 5)):
        os.pwrite(memory, index.to_bytes(2, "little"), at - GEOMETRY.memory.iova + 2)
    device = AdoptedDevice(Path("/dev/vhost-vdpa-0"), _made_of(memory), GEOMETRY, FEATURES)
    assert device.ring == RingWords(available=7, used=5)
    assert (device.status, device.offered, device.event_idx) == (15, FEATURES, True)
    with pytest.raises(DeviceRefused, match="release the device and restore anew"):
        device.queue()
    assert statuses == []
    device.reset()
    assert statuses == [0]
    device.close()
    assert open_descriptors().keys() <= before.keys()


@pytest.mark.parametrize("is_unused", [True, False])
def test_of_a_packed_ring_only_whether_it_was_used_is_told(
    systemd: Systemd, statuses: list[int], is_unused: bool
) -> None:
    geometry = control_geometry(64, packed=True)
    with SharedMemory(geometry.memory.size) as shared:
        if not is_unused:
            # The flags of the first descriptor, as a replay leaves them.
            at = geometry.descriptors - geometry.memory.iova + DESCRIPTOR.size - 1
            shared.view[at] = 0x80
        made_of = _made_of(os.dup(shared.fd))
    DescriptorStore(systemd).put(
        device="vdpa0",
        node="/dev/vhost-vdpa-0",
        owner="vm-1",
        geometry=geometry,
        features=FEATURES,
        descriptors=made_of,
    )
    for fd in made_of:
        os.close(fd)
    (found,) = DescriptorStore(systemd).take(systemd.hand_over())
    assert found.geometry == geometry
    device = AdoptedDevice(Path(found.node), found.descriptors, found.geometry, found.features)
    assert (device.is_unused, device.ring) == (is_unused, None)
    device.close()
    assert statuses == []


@pytest.mark.parametrize(
    ("size", "geometry", "why"),
    [
        (0, GEOMETRY, r"expected \d+ bytes, got 0"),
        (GEOMETRY.memory.size, replace(GEOMETRY, size=63), "63"),
        (GEOMETRY.memory.size, replace(GEOMETRY, used=1 << 40), "used"),
    ],
)
def test_a_ring_that_cannot_be(
    statuses: list[int], size: int, geometry: SplitGeometry, why: str
) -> None:
    before = open_descriptors()
    memory = os.memfd_create("odd")
    os.ftruncate(memory, size)
    with pytest.raises(VhostVdpaError, match=why):
        AdoptedDevice(Path("/dev/vhost-vdpa-0"), _made_of(memory), geometry, FEATURES)
    assert open_descriptors().keys() <= before.keys()
