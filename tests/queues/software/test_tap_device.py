"""The software device on a TAP interface: the tests' own driver at one end, the host behind it."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.availability import skip_or_fail
from tests.queues.software.driven import (
    BUFFER,
    HEADER,
    RECEIVE,
    TRANSMIT,
    bring_up,
    mapped,
    received,
    running,
    some,
)
from tests.support.descriptors import no_descriptor_left
from tests.support.guest import Guest
from tests.support.namespaces import Namespace, namespace, taps, wait_until_up, why_no_taps
from tests.support.tap_ends import HostEnd, tap_ends
from tests.support.waiting import wait_until
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.queues.software.tap import is_name
from vdpad.queues.software.tap_device import TapDevice
from vdpad.virtio.config import pull_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import Feature

HASH = frozenset({Feature.HASH_REPORT})
PLAIN = HASH | {Feature.MRG_RXBUF}
ETHERNET = bytes.fromhex("ffffffffffff 020000000001 88b5")  # a type for experiments
FEW = 8


class CountingDevice(TapDevice):
    """Counts its rounds."""

    rounds = 0

    def _serve(self) -> bool:
        self.rounds += 1
        return super()._serve()


@dataclass
class Link:
    """The device, and what is at the other end."""

    device: CountingDevice
    host: HostEnd
    within: Namespace

    def until_dropped(self, number: int) -> None:
        wait_until(lambda: self.device.dropped == number)

    def check_asleep(self) -> None:
        """A thread that does not sleep takes thousands of rounds in that time."""
        before = self.device.rounds
        time.sleep(0.3)
        assert self.device.rounds - before < 20


@pytest.fixture(scope="module")
def within() -> Iterator[Namespace]:
    """A namespace with an interface, tap0."""
    skip_or_fail(why_no_taps())
    with taps("tap0") as made:
        yield made


@pytest.fixture
def link(within: Namespace) -> Iterator[Link]:
    with no_descriptor_left(), tap_ends(within, "tap0") as (tap, host):
        device = CountingDevice(tap)
        yield Link(device, host, within)
        device.close()


def frame(number: int, size: int = 60) -> bytes:
    """One that can be told from others."""
    return (ETHERNET + number.to_bytes(4, "big")).ljust(size, b"\xa5")


def offer(guest: Guest, *sizes: int) -> None:
    for size in sizes:
        guest.queues[RECEIVE].send([], [size])


def sent(link: Link, guest: Guest, frames: list[bytes], queue: int = TRANSMIT) -> list[bytes]:
    """Sends frames, and returns what the host has received once as many have come."""
    transmit = guest.queues[queue]
    got: list[bytes] = []
    left = list(frames)

    def all_there() -> bool:
        transmit.collect()
        while left and transmit.driver.free >= 3:
            transmit.send([HEADER, left.pop(0)], [])
        got.extend(link.host.received())
        return len(got) >= len(frames)

    wait_until(all_there, every=0.0005)
    return got


# --- an announcement ---


def test_an_address_is_announced_to_the_host(link: Link) -> None:
    link.device.announce(bytes.fromhex("525400123456"))
    heard: list[bytes] = []
    wait_until(lambda: link.host.has_received(heard))
    # RFC 903 and RFC 826, by hand.
    assert heard == [
        bytes.fromhex(
            "ffffffffffff 525400123456 8035"
            "0001 0800 06 04 0003 525400123456 00000000 525400123456 00000000"
        ).ljust(60, b"\0")
    ]


def test_an_interface_that_is_down_announces_nobody(link: Link) -> None:
    link.within.must("ip", "link", "set", "tap0", "down")
    try:
        with pytest.raises(PacketDeviceRefused, match="it is down or gone"):
            link.device.announce(bytes.fromhex("525400123456"))
    finally:
        link.within.must("ip", "link", "set", "tap0", "up")


# --- frames ---


@pytest.mark.parametrize("left_out", [PLAIN, HASH], ids=["not-mergeable", "mergeable"])
def test_frames_go_both_ways_in_their_order(link: Link, left_out: frozenset[int]) -> None:
    guest = Guest(2)
    with running(link.device, guest, left_out):
        frames = [frame(number, 60 + 7 * number) for number in range(200)]
        assert sent(link, guest, frames) == frames
        offer(guest, *[BUFFER] * FEW)
        for each in frames:
            link.host.send(each)
            (got,) = some(guest)
            assert got == bytes(10) + b"\x01\x00" + each
        assert (link.device.packets, link.device.dropped) == (200, 0)


def test_the_header_is_longer_where_hashes_are_reported(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, frozenset({Feature.MRG_RXBUF})):
        offer(guest, BUFFER)
        guest.queues[TRANSMIT].send([bytes(20), frame(1)], [])
        wait_until(lambda: guest.queues[TRANSMIT].returned)
        assert link.host.received() == [frame(1)]
        link.host.send(frame(2))
        assert some(guest) == [bytes(10) + b"\x01\x00" + bytes(8) + frame(2)]


def test_a_frame_may_take_several_buffers(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, HASH):
        offer(guest, 100, 200, 300)
        link.host.send(frame(1, 550))
        wait_until(lambda: guest.queues[RECEIVE].returned)
        found = [data[:length] for _, length, data in guest.queues[RECEIVE].collect()]
        assert [len(each) for each in found] == [100, 200, 262]
        assert b"".join(found) == bytes(10) + b"\x03\x00" + frame(1, 550)


def test_all_queues_send_and_the_first_receives(link: Link) -> None:
    guest = Guest(4)
    with running(link.device, guest, PLAIN):
        for queue in (1, 3):
            assert sent(link, guest, [frame(queue)], queue) == [frame(queue)]
        guest.queues[2].send([], [BUFFER])
        offer(guest, BUFFER)
        link.host.send(frame(9))
        assert [each[12:] for each in some(guest)] == [frame(9)]
        assert guest.queues[2].returned == 0


# --- what no buffer takes, and what waits ---


def test_what_was_dropped_is_counted_over_all_starts(link: Link) -> None:
    """The frame that waits for a second buffer comes to nothing, too, with the reset."""
    for number in (0, 2):
        guest = Guest(2)
        with running(link.device, guest, HASH):
            assert link.device.dropped == number
            offer(guest, 100)
            link.host.send(frame(1, 250))
            wait_until(lambda: link.device._traffic.held)
            guest.queues[TRANSMIT].send([HEADER, b"short"], [])
            link.until_dropped(number + 1)
        assert link.device.dropped == number + 2


def test_frames_wait_in_the_interface_for_buffers(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, PLAIN):
        for number in range(50):
            link.host.send(frame(number))
        link.check_asleep()
        # One buffer, which is offered anew for each.
        offer(guest, BUFFER)
        assert [each[12:] for each in some(guest, 50)] == [frame(number) for number in range(50)]
        assert link.device.dropped == 0
        link.check_asleep()


def test_a_frame_that_waits_for_more_buffers(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, HASH):
        offer(guest, 100, 200)
        link.host.send(frame(1, 550))
        link.check_asleep()
        assert guest.queues[RECEIVE].returned == 0
        offer(guest, 300)
        wait_until(lambda: guest.queues[RECEIVE].returned)
        assert len(guest.queues[RECEIVE].collect()) == 3


@pytest.mark.parametrize("left_out", [PLAIN, HASH], ids=["not-mergeable", "mergeable"])
def test_a_frame_that_no_buffers_take_is_dropped(link: Link, left_out: frozenset[int]) -> None:
    guest = Guest(2, size=4)
    with running(link.device, guest, left_out):
        offer(guest, *[100] * 4)
        link.host.send(frame(1, 1000))
        link.until_dropped(1)
        link.host.send(frame(2))
        assert [each[12:] for each in some(guest)] == [frame(2)]


def test_frames_wait_while_the_device_is_suspended(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, PLAIN):
        offer(guest, BUFFER)
        link.device.suspend()
        link.host.send(frame(1))
        link.check_asleep()
        assert link.device.base(RECEIVE) == 0
        link.device.reset()
        bring_up(link.device, guest, PACKET_FEATURES - PLAIN)
        assert [each[12:] for each in some(guest)] == [frame(1)]


def test_a_guest_that_breaks_its_rings_lets_the_device_sleep(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, PLAIN):
        guest.queues[TRANSMIT].send([b"too short"], [])
        wait_until(lambda: DeviceStatus.NEEDS_RESET in link.device.status())
        link.host.send(frame(1))
        link.check_asleep()


# --- the link ---


def test_what_is_sent_while_the_host_s_end_is_down_is_dropped(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, PLAIN):
        link.within.must("ip", "link", "set", "tap0", "down")
        guest.queues[TRANSMIT].send([HEADER, frame(1)], [])
        link.until_dropped(1)
        assert len(guest.queues[TRANSMIT].collect()) == 1
        link.check_asleep()
        link.within.must("ip", "link", "set", "tap0", "up")
        wait_until_up(link.within, "tap0")
        assert sent(link, guest, [frame(2)]) == [frame(2)]
        offer(guest, BUFFER)
        link.host.send(frame(3))
        assert [each[12:] for each in some(guest)] == [frame(3)]


def test_what_is_no_frame_is_dropped(link: Link) -> None:
    guest = Guest(2)
    with running(link.device, guest, PLAIN):
        guest.queues[TRANSMIT].send([HEADER, b"short"], [])
        guest.queues[TRANSMIT].send([HEADER], [])
        link.until_dropped(2)
        assert sent(link, guest, [frame(1)]) == [frame(1)]


def test_an_interface_that_is_removed_is_a_link_that_is_down() -> None:
    skip_or_fail(why_no_taps())
    changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with taps("tap1") as within, tap_ends(within, "tap1") as (tap, host):
        device = CountingDevice(tap)
        link, guest = Link(device, host, within), Guest(2)
        with running(device, guest, PLAIN):
            device.set_config_call(changed)
            assert pull_config(device.config()).status == PACKET_CONFIG.status
            within.must("ip", "link", "delete", "tap1")
            wait_until(lambda: pull_config(device.config()).status == 0)
            wait_until(lambda: os.read(changed, 8))
            link.check_asleep()
            guest.queues[TRANSMIT].send([HEADER, frame(1)], [])
            link.until_dropped(1)
            assert DeviceStatus.NEEDS_RESET not in device.status()
        device.close()
    os.close(changed)


@pytest.mark.parametrize(
    ("host", "guest"),
    [("fe:54:00:12:34:56", "525400123456"), ("52:54:00:12:34:56", "565400123456")],
)
def test_the_guest_s_address_is_the_interface_s_but_for_its_first_byte(
    host: str, guest: str
) -> None:
    skip_or_fail(why_no_taps())
    with taps("tap1") as within:
        within.must("ip", "link", "set", "tap1", "address", host)
        with tap_ends(within, "tap1") as (tap, _):
            device = TapDevice(tap)
            assert pull_config(device.config()).mac == bytes.fromhex(guest)
            device.close()


# --- attaching ---


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *[("tap0", True), ("t", True), ("vm-7.net_0", True), ("a" * 15, True), ("...", True)],
        *[("", False), ("a" * 16, False), ("tap%d", False), ("a/b", False), ("a b", False)],
        *[(".", False), ("..", False), ("a:1", False), ("tap\n", False), ("täp", False)],
    ],
)
def test_what_an_interface_can_be_named(name: str, good: bool) -> None:
    assert is_name(name) is good


ATTACH = "import sys; from vdpad.queues.software.tap import Tap; Tap.attach(sys.argv[1])"
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin")


def attached(within: Namespace, name: str, *privilege: str) -> str:
    """What a process of the namespace says that attaches to an interface."""
    return within.run(*privilege, sys.executable, "-c", ATTACH, name).stderr


def test_an_interface_that_is_there_takes_no_privilege() -> None:
    skip_or_fail(why_no_taps())
    with namespace() as within:
        mine = ("user", "0")
        within.must("ip", "tuntap", "add", "dev", "tap1", "mode", "tap", *mine)
        assert attached(within, "tap1", *WITHOUT_NET_ADMIN) == ""
        told = attached(within, "tap2", *WITHOUT_NET_ADMIN)
        assert (
            "TapNotPermitted: tap2: expected a TAP interface to attach to, got Operation not"
            in told
        )
        assert "ip tuntap add dev NAME mode tap user USER" in told


def test_one_that_is_not_there_is_made_by_who_may() -> None:
    skip_or_fail(why_no_taps())
    with namespace() as within:
        assert attached(within, "tap2") == ""
        assert "tap2" not in within.run("ip", "link").stdout


def test_what_cannot_be_attached_to_is_told() -> None:
    skip_or_fail(why_no_taps())
    with taps("tap1", multi_queue=True) as within, taps("tap1") as other:
        assert "without multi_queue" in attached(within, "tap1")
        with tap_ends(other, "tap1") as (tap, _):
            assert "another process has it, or this one" in attached(other, "tap1")
            tap.close()


def test_features_and_settings_are_those_of_the_loop(link: Link) -> None:
    assert link.device.offered == PACKET_FEATURES
    config = pull_config(link.device.config())
    assert config.mac[1:] != PACKET_CONFIG.mac[1:]
    assert config.mac[0] in (0x52, 0x56)
    guest = Guest(2)
    with mapped(link.device, guest):
        bring_up(link.device, guest, PACKET_FEATURES)
        assert link.device.net.settings()["queue_pairs"] == 1
        assert received(guest) == []
    guest.close()
