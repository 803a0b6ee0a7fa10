"""The guest on a back end with a TAP interface: it reaches the host, and the host reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import TRIXIE_BACKPORTS
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.namespaces import Namespace, taps, why_no_taps
from tests.support.waiting import wait_until

from .machine import why_unavailable
from .vhost_user import AllQueues, OnBackEnd, on_back_end

HOST, GUEST = "192.0.2.2", "192.0.2.1"
HOST_MAC, GUEST_MAC = "fe:54:00:12:34:56", "52:54:00:12:34:56"


@dataclass
class Reached:
    """A guest, and the namespace that its network is in."""

    on: OnBackEnd
    within: Namespace

    def ping(self, *options: str) -> None:
        """The guest hears an answer to all that it asks."""
        asked = " ".join(("ping", "-c", "20", "-i", "0.05", *options, HOST))
        assert "20 packets received" in self.on.guest.run(asked)


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    skip_or_fail(why_unavailable() or why_no_version(TRIXIE_BACKPORTS) or why_no_taps())
    folder = tmp_path_factory.mktemp("tap")
    with taps("tap0") as within:
        within.must("ip", "link", "set", "tap0", "address", HOST_MAC)
        within.must("ip", "address", "add", f"{HOST}/24", "dev", "tap0")
        more = {"software": "tap:tap0", "within": within}
        with on_back_end(folder, AllQueues, TRIXIE_BACKPORTS, **more) as on:
            yield Reached(on, within)
            assert "Traceback" not in on.process.log()


def test_a_guest_reaches_the_host(reached: Reached) -> None:
    assert GUEST_MAC in reached.on.guest.run("cat /sys/class/net/eth0/address")
    reached.on.guest.run(f"ip address replace {GUEST}/24 dev eth0")
    reached.ping()
    # Packets of several fragments, each as long as the link takes.
    reached.ping("-s", "20000")


def test_on_all_its_queues_and_after_a_pause(reached: Reached) -> None:
    reached.on.guest.run(f"ip address replace {GUEST}/24 dev eth0", "ethtool -L eth0 combined 4")
    reached.ping()
    reached.on.guest.qmp("stop")
    reached.on.guest.qmp("cont")
    reached.ping()
    assert reached.on.state().queue_pairs == 4


def test_a_link_that_is_removed_is_down_for_the_guest(reached: Reached) -> None:
    carrier = "cat /sys/class/net/eth0/carrier"
    assert reached.on.guest.run(carrier).strip() == "1"
    reached.within.must("ip", "link", "delete", "tap0")
    wait_until(lambda: reached.on.guest.run(carrier).strip() == "0")
