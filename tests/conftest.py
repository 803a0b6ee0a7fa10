"""What holds for all tests: their tiers, who runs which, and that none fails for being slow."""

import gc
import os
import signal
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist import is_xdist_worker
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.rooms import BEGUN_ONCE, HERE, MACHINES, PARSED_ONCE, room_of


def pytest_configure() -> None:
    """Gives children the signals that they have in a terminal, and generated examples their time.

    What is ignored here they ignore too, and a shell lets its background jobs ignore SIGINT.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile(
        "vdpad",
        parent=settings.default,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.register_profile("few", settings.get_profile("vdpad"), max_examples=20)
    # Where another is asked for, hypothesis loads it after this.
    settings.load_profile("vdpad")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Marks what boots machines; side by side what takes longest goes first."""
    # readline, which pytest imports, sets them behind Python's back, where children have them from;
    # a worker of xdist's is such a child, so there Python knows them too.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
        os.unsetenv(name)
    for item in items:
        if room_of(item.path) in MACHINES:
            item.add_marker(pytest.mark.machine)
    if is_xdist_worker(session):
        items.sort(key=_place)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether -m leaves out all that lies there, by its room; None leaves it to others to say."""
    expression = config.getoption("markexpr")
    if " or " in expression or "not machine" not in expression.split(" and "):
        return None
    of_a_machine = HERE in collection_path.parents and room_of(collection_path) in MACHINES
    return True if of_a_machine else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the garbage collector from going through all tests again and again: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def _place(item: pytest.Item) -> int:
    room = room_of(item.path)
    if room in MACHINES:
        return MACHINES.index(room)
    return len(MACHINES) + (not {"fuzz", "bulk"} & {mark.name for mark in item.iter_markers()})


class ByMachine(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives one process all tests that share what is costly, else those of a file."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


@cache  # It is asked twice a test.
def _scope(file: str) -> str:
    room = room_of(HERE.parent / file)
    if room in PARSED_ONCE:
        return PARSED_ONCE[0]
    return room if room in BEGUN_ONCE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByMachine:
    """Side by side, as many processes as -n says."""
    return ByMachine(config, log)
