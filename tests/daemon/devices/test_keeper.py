"""Devices that the daemon keeps, where one is slow or fails: what tests/vm cannot bring about."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from tests.support.no_means import no_threads
from tests.support.waiting import until
from vdpad.daemon.devices import keeper as keeper_module
from vdpad.daemon.devices import opening
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.devices.store import DescriptorStore
from vdpad.daemon.events.devices import (
    DeviceKept,
    DeviceLeft,
    DeviceLost,
    DeviceNotReleased,
    DeviceReleased,
    DeviceStillKept,
)
from vdpad.daemon.faults import refusal_of
from vdpad.errors import VdpadError
from vdpad.queues.vhost_vdpa.errors import (
    DeviceRefused,
    MemoryLimit,
    NodeBusy,
    NoSuchNode,
    NotPermitted,
)
from vdpad.service.events.event import Event
from vdpad.service.refusal import Kind, Refusal
from vdpad.virtio.features import FeatureSet
from vdpad.wire.user_threads import NoThread

NODE = Path("/dev/vhost-vdpa-0")
SECONDS = 5.0


class FakeDevice:
    """Comes up and goes when it is let."""

    may_open = threading.Event()
    may_close = threading.Event()
    refuses: Exception | None = None
    closed = 0

    def __init__(self, node: Path, guest: FeatureSet) -> None:
        assert type(self).may_open.wait(SECONDS)
        refuses = type(self).refuses
        if refuses is not None:
            raise refuses

    def close(self) -> None:
        assert type(self).may_close.wait(SECONDS)
        type(self).closed += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[FakeDevice]:
    """The class of all devices, willing."""

    class Device(FakeDevice):
        may_open = threading.Event()
        may_close = threading.Event()

    Device.may_open.set()
    Device.may_close.set()
    monkeypatch.setattr(opening, "VhostVdpaDevice", Device)
    return Device


async def _bring_up(keeper: DeviceKeeper, migration: str = "vm-1") -> Any:
    return await keeper.bring_up("vdpa0", NODE, frozenset(), migration)


async def test_a_device_is_known_by_its_name_and_by_its_node(device: type[FakeDevice]) -> None:
    keeper = DeviceKeeper()
    kept = await _bring_up(keeper)
    assert keeper.named("vdpa0") is keeper.named(str(NODE)) is kept
    with pytest.raises(Refusal, match="it keeps: vdpa0"):
        keeper.named("vdpa1")
    await keeper.close(kept)
    assert device.closed == 1
    with pytest.raises(Refusal, match="it keeps: none"):
        keeper.named("vdpa0")


async def test_the_loop_runs_while_a_device_comes_up(device: type[FakeDevice]) -> None:
    device.may_open.clear()
    keeper = DeviceKeeper()
    coming = asyncio.create_task(_bring_up(keeper))
    await asyncio.sleep(0)
    for call in (_bring_up(keeper, "vm-2"), keeper.close(keeper.named("vdpa0"))):
        with pytest.raises(Refusal, match="being brought up for migration vm-1") as caught:
            await call
        assert caught.value.kind is Kind.BUSY
    device.may_open.set()
    await keeper.close(await coming)


async def test_a_device_that_takes_too_long_is_given_back_when_it_comes(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    device.may_open.clear()
    keeper = DeviceKeeper()
    with pytest.raises(Refusal, match="to come up within") as caught:
        await _bring_up(keeper)
    assert caught.value.kind is Kind.TIMEOUT
    with pytest.raises(Refusal, match="being given back"):
        await _bring_up(keeper, "vm-2")
    device.may_open.set()
    await until(lambda: keeper.get("vdpa0") is None)
    assert device.closed == 1
    await keeper.close(await _bring_up(keeper, "vm-2"))


async def test_a_device_that_fails_too_late_is_forgotten(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    device.may_open.clear()
    device.refuses = DeviceRefused("no")
    keeper = DeviceKeeper()
    with pytest.raises(Refusal):
        await _bring_up(keeper)
    device.may_open.set()
    await until(lambda: keeper.get("vdpa0") is None)
    assert device.closed == 0


async def test_cancellation_gives_the_device_back(device: type[FakeDevice]) -> None:
    device.may_open.clear()
    keeper = DeviceKeeper()
    coming = asyncio.create_task(_bring_up(keeper))
    await asyncio.sleep(0)
    coming.cancel()
    await asyncio.wait([coming])
    device.may_open.set()
    await until(lambda: keeper.get("vdpa0") is None)
    assert device.closed == 1


async def test_a_device_that_does_not_go(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    keeper = DeviceKeeper()
    kept = await _bring_up(keeper)
    device.may_close.clear()
    with pytest.raises(Refusal, match="to be given back within") as caught:
        await keeper.close(kept)
    assert caught.value.kind is Kind.TIMEOUT
    with pytest.raises(Refusal, match="being given back"):
        await keeper.close(kept)
    device.may_close.set()
    await until(lambda: keeper.get("vdpa0") is None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoSuchNode("gone"), Kind.NO_SUCH_DEVICE),
        (NotPermitted("no"), Kind.NOT_ALLOWED),
        (MemoryLimit("small"), Kind.NOT_ALLOWED),
        (DeviceRefused("no"), Kind.DEVICE_BROKEN),
        (NodeBusy("taken"), Kind.BUSY),
    ],
)
async def test_what_a_caller_is_told(
    device: type[FakeDevice], error: Exception, kind: Kind
) -> None:
    device.refuses = error
    keeper = DeviceKeeper()
    with pytest.raises(VdpadError) as caught:
        await _bring_up(keeper)
    refusal = refusal_of(caught.value)
    assert refusal is not None
    assert refusal.kind is kind
    assert keeper.get("vdpa0") is None


async def test_all_are_given_back_at_the_end(device: type[FakeDevice]) -> None:
    keeper = DeviceKeeper()
    for number in range(3):
        await keeper.bring_up(f"vdpa{number}", Path(f"/dev/vhost-vdpa-{number}"), frozenset(), "vm")
    await keeper.stop()
    assert device.closed == 3


# --- what is told ---


async def test_that_a_device_is_kept_and_given_back_is_told(device: type[FakeDevice]) -> None:
    told: list[Event] = []
    keeper = DeviceKeeper(told.append)
    named = ("vm-1", "vdpa0", str(NODE))
    kept = await _bring_up(keeper)
    assert told == [DeviceKept(*named)]
    assert len(keeper) == 1
    await keeper.close(kept)
    assert told == [DeviceKept(*named), DeviceReleased(*named)]
    assert len(keeper) == 0


async def test_that_a_device_never_came_up_is_not_told_as_if_it_had(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    device.may_open.clear()
    device.refuses = DeviceRefused("no")
    told: list[Event] = []
    keeper = DeviceKeeper(told.append)
    with pytest.raises(Refusal, match="come up"):
        await _bring_up(keeper)
    device.may_open.set()
    await until(lambda: len(keeper) == 0)
    assert told == []


async def test_that_a_device_is_not_given_back_at_the_end_is_told(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    device.may_close.clear()
    told: list[Event] = []
    keeper = DeviceKeeper(told.append)
    await _bring_up(keeper)
    await keeper.stop()
    device.may_close.set()
    assert isinstance(told[1], DeviceNotReleased)
    assert told[1].device == "vdpa0"
    assert "be given back within" in told[1].reason
    await until(lambda: len(keeper) == 0)


# --- with a descriptor store ---


class FakeStore:
    """Writes down what it is told."""

    is_present = True

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.stored: list[Any] = []

    def put(self, *, device: str, **_: object) -> str:
        self.told.append(f"put {device}")
        return f"key of {device}"

    def drop(self, key: str) -> None:
        self.told.append(f"drop {key}")

    def take(self, inherited: object) -> list[Any]:
        return self.stored


class StoredDevice(FakeDevice):
    """One that has what the store wants to know, and says what is done to it."""

    geometry = features = None
    told: ClassVar[list[str]]
    fails_to_reset = False

    def descriptors(self) -> None:
        """It has none."""

    def reset(self) -> None:
        type(self).told.append("reset")
        if type(self).fails_to_reset:
            raise DeviceRefused("no")

    def close(self) -> None:
        super().close()
        type(self).told.append("close")


@pytest.fixture
def stored_device(monkeypatch: pytest.MonkeyPatch) -> type[StoredDevice]:
    """The class of all devices, willing, with what was told to them and to the store."""

    class Device(StoredDevice):
        may_open = threading.Event()
        may_close = threading.Event()
        told: ClassVar[list[str]] = []

    Device.may_open.set()
    Device.may_close.set()
    monkeypatch.setattr(opening, "VhostVdpaDevice", Device)
    return Device


def _keeper(store: FakeStore, events: list[Event] | None = None) -> DeviceKeeper:
    heard: list[Event] = [] if events is None else events
    return DeviceKeeper(heard.append, cast("DescriptorStore", store))


@pytest.mark.parametrize("fails", [False, True])
async def test_giving_back_is_a_reset_and_then_every_copy(
    stored_device: type[StoredDevice], fails: bool
) -> None:
    stored_device.fails_to_reset = fails
    keeper = _keeper(FakeStore(stored_device.told))
    kept = await _bring_up(keeper)
    assert stored_device.told == ["put vdpa0"]
    await keeper.close(kept)
    assert stored_device.told == ["put vdpa0", "reset", "drop key of vdpa0", "close"]


async def test_at_the_end_all_is_left_to_the_store(stored_device: type[StoredDevice]) -> None:
    events: list[Event] = []
    keeper = _keeper(FakeStore(stored_device.told), events)
    await _bring_up(keeper)
    await keeper.stop()
    named = ("vm-1", "vdpa0", str(NODE))
    assert events == [DeviceKept(*named), DeviceLeft(*named)]
    assert stored_device.told == ["put vdpa0", "close"]


async def test_a_store_that_fails_leaves_no_device_behind(
    stored_device: type[StoredDevice],
) -> None:
    store = FakeStore(stored_device.told)
    store.put = None  # type: ignore[assignment]
    keeper = _keeper(store)
    with pytest.raises(TypeError):
        await _bring_up(keeper)
    assert stored_device.told == ["close"]
    assert keeper.get("vdpa0") is None


def _stored(name: str) -> Any:
    return SimpleNamespace(
        key=f"key of {name}",
        device=name,
        node=f"/dev/{name}",
        owner="vm-1",
        descriptors=None,
        geometry=None,
        features=None,
    )


async def test_what_was_stored_is_kept_on_for_its_migration(
    stored_device: type[StoredDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Adopted(stored_device):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path, *_: object) -> None:
            self.is_unused = path.name == "vdpa1"
            if path.name == "vdpa2":
                raise DeviceRefused("gone")

    monkeypatch.setattr(opening, "AdoptedDevice", Adopted)
    store = FakeStore(stored_device.told)
    store.stored = [_stored(name) for name in ("vdpa0", "vdpa1", "vdpa2")]
    events: list[Event] = []
    keeper = _keeper(store, events)
    adopted = await keeper.adopt([])
    assert events == [
        DeviceStillKept("vm-1", "vdpa0", "/dev/vdpa0"),
        DeviceStillKept("vm-1", "vdpa1", "/dev/vdpa1"),
        DeviceLost("vm-1", "vdpa2", "/dev/vdpa2", "gone"),
    ]
    assert [(kept.name, kept.owner, kept.is_unused) for kept in adopted] == [
        ("vdpa0", "vm-1", False),
        ("vdpa1", "vm-1", True),
    ]
    assert stored_device.told == ["drop key of vdpa2"]
    assert keeper.get("vdpa2") is None
    with pytest.raises(Refusal, match="keeps vdpa0 for migration vm-1"):
        await _bring_up(keeper, "vm-2")
    await keeper.close(keeper.named("/dev/vdpa0"))
    assert stored_device.told[1:] == ["reset", "drop key of vdpa0", "close"]
    await _bring_up(keeper, "vm-2")


async def test_cancellation_as_the_device_comes_gives_it_back_too(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(call: Callable[[], Any], name: str) -> Any:
        done = asyncio.get_running_loop().create_future()
        done.set_result(call())
        if name.startswith("open"):
            coming.cancel()
        return done

    monkeypatch.setattr(keeper_module, "on_a_thread", at_once)
    keeper = DeviceKeeper()
    coming = asyncio.create_task(_bring_up(keeper))
    await asyncio.wait([coming])
    await until(lambda: keeper.get("vdpa0") is None)
    assert coming.cancelled()
    assert device.closed == 1


# --- without threads ---


async def test_without_a_thread_a_device_is_nobody_s(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = DeviceKeeper()
    with monkeypatch.context() as patch:
        no_threads(patch)
        with pytest.raises(NoThread):
            await _bring_up(keeper)
        assert len(keeper) == 0
    await keeper.close(await _bring_up(keeper, "vm-2"))


async def test_without_a_thread_a_device_stays_until_it_is_released_again(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = DeviceKeeper()
    kept = await _bring_up(keeper)
    with monkeypatch.context() as patch:
        no_threads(patch)
        with pytest.raises(NoThread):
            await keeper.close(kept)
        assert keeper.named("vdpa0").is_up
    await keeper.close(kept)
    assert device.closed == 1


async def test_one_that_comes_too_late_is_given_back_once_there_is_a_thread(
    device: type[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_MAX_SECONDS", 0.01)
    monkeypatch.setattr(keeper_module, "_TRIES_AGAIN", 0.001)
    device.may_open.clear()
    keeper = DeviceKeeper()
    with pytest.raises(Refusal, match="to come up within"):
        await _bring_up(keeper)
    with monkeypatch.context() as patch:
        no_threads(patch)
        device.may_open.set()
        await asyncio.sleep(0.05)
        assert len(keeper) == 1
    await until(lambda: len(keeper) == 0)
    assert device.closed == 1
