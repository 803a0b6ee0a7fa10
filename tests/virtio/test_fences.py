"""The fences are found, or their absence is told."""

import ctypes
import importlib.util
import platform
from types import ModuleType, SimpleNamespace

import pytest

from vdpad.errors import VdpadError
from vdpad.virtio import fences


def _no_library(name: str) -> ctypes.CDLL:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of libatomic, which order each fence was asked for."""
    asked: list[int] = []

    def atomic_thread_fence(order: int) -> None:
        asked.append(order)

    def library(name: str) -> SimpleNamespace:
        assert name == "libatomic.so.1"
        return SimpleNamespace(atomic_thread_fence=atomic_thread_fence)

    monkeypatch.setattr(ctypes, "CDLL", library)
    return asked


@pytest.fixture
def without_libatomic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", _no_library)


def _fresh_fences() -> ModuleType:
    """The module as another machine would load it: it chooses its fences when it is imported."""
    assert fences.__file__ is not None
    spec = importlib.util.spec_from_file_location("fresh_fences", fences.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_machine_s_fences_can_be_called_again_and_again() -> None:
    for _ in range(3):
        fences.full_fence()
        fences.ordering_fence()


@pytest.mark.parametrize("fence", ["full_fence", "ordering_fence"])
def test_where_the_processor_may_reorder_stores_both_are_libatomic_s_full_fence(
    fence: str, orders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    getattr(_fresh_fences(), fence)()
    assert orders == [5]  # __ATOMIC_SEQ_CST


@pytest.mark.usefixtures("without_libatomic")
@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_x86_64_needs_no_libatomic(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    module = _fresh_fences()
    for _ in range(3):
        module.full_fence()
        module.ordering_fence()


@pytest.mark.parametrize("machine", ["aarch64", "riscv64", ""])
@pytest.mark.usefixtures("without_libatomic")
def test_another_machine_without_libatomic_is_told_what_to_install(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(VdpadError, match=rf"on {machine}, .*install libatomic1") as told:
        _fresh_fences()
    assert type(told.value).__name__ == "NoFence"
