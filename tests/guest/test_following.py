"""A guest whose control queue QEMU keeps: the back end's device has its filter all the same."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.availability import skip_or_fail
from tests.qemu.states import multicast_macs, unicast_macs
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until

from .machine import why_unavailable
from .said import said_of
from .states import packed
from .vhost_user import DataQueues, OnBackEnd, on_back_end, started

MAC = "52:54:00:99:99:99"
EVERYTHING = (
    f"ip link set eth0 address {MAC} allmulticast on",
    *(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in (1, 5, 4094)),
    *(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(3)),
    *(f"ip maddr add {mac} dev eth0" for mac in multicast_macs(20)),
)
LESS = (
    "ip link delete eth0.5",
    "ip link set eth0 allmulticast off",
    f"bridge fdb del {unicast_macs(3)[0]} dev eth0",
)
MANY_MACS = tuple(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(70))


class Following:
    """A guest, its QEMU's monitor, and a back end that follows that."""

    def __init__(
        self, on: OnBackEnd, options: tuple[str, ...], program: tuple[str, ...], told: Path
    ) -> None:
        self.on = on
        self._options = options
        self._program = program
        self._told = told

    def outer(self) -> dict[str, Any]:
        """The filter of QEMU's device, which the guest has set."""
        (shown,) = self.on.guest.qmp("query-rx-filter")
        return {
            "mac": shown["main-mac"],
            "promisc": shown["promiscuous"],
            "allmulti": shown["multicast"] == "all",
            "alluni": shown["unicast"] == "all" or shown["unicast-overflow"],
            "nobcast": shown["broadcast-allowed"],
            "unicast": sorted(shown["unicast-table"]),
            "multicast": sorted(shown["multicast-table"]),
            "vlans": sorted(shown["vlan-table"]),
        }

    def inner(self) -> dict[str, Any] | None:
        """The filter of the back end's device; None where that is not up."""
        self._told.unlink(missing_ok=True)
        self.on.process.process.send_signal(signal.SIGUSR1)
        wait_until(self._told.exists, said=self.on.process.log)
        settings = json.loads(self._told.read_text())
        if settings is None:
            return None
        modes = ("promisc", "allmulti", "alluni", "nobcast")
        return {
            "mac": settings["mac"],
            **{mode: settings["rx"][mode] for mode in modes},
            "unicast": sorted(settings["mac_table"]["unicast"]),
            "multicast": sorted(settings["mac_table"]["multicast"]),
            "vlans": settings["vlans"],
        }

    def until_equal(self) -> dict[str, Any]:
        """Returns what both filters are, once they are equal."""
        wait_until(lambda: self.inner() == self.outer(), every=0.05, said=self._differing)
        return self.outer()

    def _differing(self) -> str:
        return f"{self.inner()}\n{self.outer()}\n{self.on.process.log()}"

    def begin_anew(self) -> None:
        """The back end is killed, and another one takes its place."""
        self.on.process.kill()
        self.on.process = started(self.on.process.folder, *self._options, program=self._program)


@pytest.fixture(scope="module", params=[TRIXIE, TRIXIE_BACKPORTS], ids=str)
def following(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Following]:
    skip_or_fail(why_unavailable() or why_no_version(request.param))
    folder = tmp_path_factory.mktemp("following")
    program = (sys.executable, "-m", "tests.backend.telling_process", str(folder / "told"))
    options = ("--qmp", str(folder / "qmp"))

    def card(socket: Path) -> DataQueues:
        return DataQueues(socket, monitor=folder / "qmp")

    with on_back_end(folder, card, request.param, *options, program=program) as on:
        yield Following(on, options, program, folder / "told")
        assert "Traceback" not in on.process.log()


@pytest.fixture
def booted(following: Following) -> Iterator[Following]:
    """The same; it is as booted before and after."""
    yield following
    following.on.guest.run("restart")


def test_all_that_the_guest_sets_of_its_filter(booted: Following) -> None:
    assert booted.until_equal()["vlans"] == [0]
    booted.on.guest.run(*EVERYTHING)
    both = booted.until_equal()
    said = said_of(booted.on.guest, "eth0")
    assert both["mac"] == MAC
    assert (both["promisc"], both["allmulti"]) == (said.promisc, said.allmulti) == (False, True)
    assert both["vlans"] == [0, 1, 5, 4094]
    assert frozenset(packed(tuple(both["unicast"]))) == said.unicast
    assert frozenset(packed(tuple(both["multicast"]))) == said.multicast
    booted.on.guest.run(*LESS)
    less = booted.until_equal()
    assert (less["allmulti"], less["vlans"]) == (False, [0, 1, 4094])
    assert len(less["unicast"]) == len(both["unicast"]) - 1
    booted.on.guest.run("ip link set eth0 promisc on")
    assert booted.until_equal()["promisc"] is True
    booted.on.check_loop()


def test_a_table_that_overflows(booted: Following) -> None:
    booted.on.guest.run(*MANY_MACS)
    assert booted.until_equal()["alluni"] is True


def test_what_is_captured(booted: Following) -> None:
    booted.on.guest.run(*EVERYTHING, "ethtool -L eth0 combined 2")
    both = booted.until_equal()
    captured = booted.on.asked("capture")
    state = captured["state"]
    assert captured["missing"] == []
    assert state["mac"] == both["mac"]
    assert state["vlans"] == [0, 1, 5, 4094]
    assert sorted(state["mac_table"]["unicast"]) == both["unicast"]
    assert state["rx"] == {"promisc": False, "allmulti": True}
    assert state["queue_pairs"] == 2


def test_a_driver_that_is_loaded_anew_and_a_guest_that_boots(booted: Following) -> None:
    first = booted.until_equal()
    booted.on.guest.run(*EVERYTHING)
    assert booted.until_equal() != first
    booted.on.guest.run("restart")
    assert booted.until_equal() == first
    booted.on.guest.run(*EVERYTHING)
    booted.on.guest.reboot()
    assert booted.until_equal() == first


def test_a_pause_and_a_back_end_that_is_killed(booted: Following) -> None:
    booted.on.guest.run(*EVERYTHING)
    before = booted.until_equal()
    booted.on.guest.qmp("stop")
    assert booted.on.asked("capture")["state"]["mac"] == MAC
    booted.on.guest.qmp("cont")
    assert booted.until_equal() == before
    booted.begin_anew()
    assert booted.until_equal() == before
    names = [each["event"] for each in booted.on.process.events("filter-followed")]
    assert names == ["filter-followed"]
