"""A device's section: which part of a state each byte of it becomes."""

import io
from dataclasses import replace
from typing import Any

import pytest

from tests.state.formats.qemu import made
from vdpad.state.formats.qemu import read_stream
from vdpad.state.found import Found
from vdpad.state.model import NetState
from vdpad.virtio.bits import mask_of
from vdpad.virtio.features import Feature

BASE = (Feature.VERSION_1, Feature.CTRL_VQ)


def found(net: made.Net, machine: str = "pc-q35-10.0") -> Found:
    """What the stream of a machine with this device tells."""
    (device,) = read_stream(io.BytesIO(made.stream(net.section(), machine=machine))).devices
    return device


def state(net: made.Net) -> NetState:
    """The state that it makes."""
    got = found(net)
    assert got.state is not None, got.problems
    return got.state


def net(*features: Feature, **changes: Any) -> made.Net:
    """A device whose driver negotiated these features, and what those need."""
    return replace(made.Net(features=mask_of({*BASE, *features})), **changes)


def unicast(count: int) -> tuple[bytes, ...]:
    """So many unicast addresses."""
    return tuple(bytes([0x52, 0x54, 0, 0, at >> 8, at & 0xFF]) for at in range(count))


def multicast(count: int) -> tuple[bytes, ...]:
    """So many multicast addresses."""
    return tuple(bytes([0x33, 0x33, 0, 0, at >> 8, at & 0xFF]) for at in range(count))


ALL_VLANS = b"\xff" * 512


def test_nothing_negotiated_is_a_state_of_nothing() -> None:
    bare = made.Net(vlans=ALL_VLANS, flags={"promisc": 1}, status=0)
    got = found(bare)
    assert got.state == NetState(version=1, features=frozenset())
    assert "no driver of the guest's runs the device" in got.notes


def test_settings_whose_feature_was_not_negotiated_are_qemus_own() -> None:
    got = state(net(vlans=ALL_VLANS, flags={"promisc": 1}, macs=unicast(2), pairs=(4, 1)))
    assert got == NetState(version=1, features=frozenset(BASE))


def test_without_a_control_queue_every_setting_is_qemus_own() -> None:
    """As of Linux with ctrl_vq=off, whose offloads stand in the stream all the same."""
    features = {Feature.CTRL_GUEST_OFFLOADS, Feature.CTRL_RX_EXTRA, Feature.HASH_REPORT}
    device = made.Net(
        features=mask_of({*features, Feature.VERSION_1, Feature.GUEST_CSUM}),
        offloads=0b10,
        flags={"promisc": 1, "alluni": 1},
        macs=unicast(1),
        vlans=ALL_VLANS,
        rss=made.Rss(redirect=False, table=(0,)),
    )
    got = found(device)
    assert got.state == NetState(
        version=1, features=frozenset({*features, Feature.VERSION_1, Feature.GUEST_CSUM})
    )
    assert got.missing == ()
    assert [note.partition(", which")[0] for note in got.notes] == [
        "the guest negotiated CTRL_RX_EXTRA, HASH_REPORT without CTRL_VQ"
    ]


def test_offloads_of_a_guest_without_checksums() -> None:
    """As of Linux with guest_csum=off."""
    features = (Feature.CTRL_GUEST_OFFLOADS, Feature.GUEST_TSO4, Feature.GUEST_UFO)
    got = found(net(*features, offloads=1 << 7 | 1 << 10))
    assert got.state is not None
    assert got.state.guest_offloads == frozenset({7, 10})
    assert [note.partition(", which")[0] for note in got.notes] == [
        "the guest negotiated GUEST_TSO4, GUEST_UFO without GUEST_CSUM"
    ]


@pytest.mark.parametrize("vectors", [0, 1, 3, 8, 10, 2048])
@pytest.mark.parametrize("express", [False, True])
@pytest.mark.parametrize("pairs", [None, (2, 1), (4, 3), (511, 511)])
@pytest.mark.parametrize("rss", [None, 1, 2])
def test_every_layout_is_read_to_its_last_byte(
    vectors: int, express: bool, pairs: tuple[int, int] | None, rss: int | None
) -> None:
    features = [Feature.CTRL_MAC_ADDR, Feature.MQ, Feature.CTRL_GUEST_OFFLOADS, Feature.GUEST_CSUM]
    device = net(
        *features,
        *([Feature.RSS] if rss else []),
        vectors=vectors,
        express=express,
        pairs=pairs,
        offloads=0b10,
        rss=made.Rss(version=rss, table=(0,)) if rss else None,
    )
    got = state(device)
    assert got.mac == made.MAC
    assert got.queue_pairs == (pairs[1] if pairs else 1)
    assert got.guest_offloads == frozenset({1})
    assert (got.rss is not None) is (rss is not None)


@pytest.mark.parametrize("negotiated", [False, True])
def test_features_past_63(negotiated: bool) -> None:
    high = 1 << (Feature.GUEST_UDP_TUNNEL_GSO - 64) if negotiated else 0
    got = state(net(high_features=high))
    assert (Feature.GUEST_UDP_TUNNEL_GSO in got.features) is negotiated
    assert Feature.VERSION_1 in got.features


def test_a_legacy_device_has_32_features_and_no_subsection_for_more() -> None:
    whole = made.Net(features=mask_of({Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR})).encoded()
    without = whole.replace(
        made.subsection("virtio/64bit_features", (1 << 17 | 1 << 23).to_bytes(8, "big")), b""
    )
    assert len(without) < len(whole)
    section = made.Section("0000:00:03.0/virtio-net", without, "virtio-net")
    (got,) = read_stream(io.BytesIO(made.stream(section))).devices
    assert got.state == NetState(
        version=1, features=frozenset({Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR}), mac=made.MAC
    )


@pytest.mark.parametrize("mode", ["promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"])
def test_each_receive_mode(mode: str) -> None:
    rx = state(net(Feature.CTRL_RX, Feature.CTRL_RX_EXTRA, flags={mode: 1})).rx
    assert rx is not None
    assert {name for name, on in rx.model_dump().items() if on} == {mode}
    assert None not in rx.model_dump().values()


def test_without_rx_extra_its_modes_are_left_out() -> None:
    rx = state(net(Feature.CTRL_RX, flags={"allmulti": 1})).rx
    assert rx is not None
    assert rx.model_dump(exclude_none=True) == {"promisc": False, "allmulti": True}


@pytest.mark.parametrize(
    ("singles", "groups"), [(0, 0), (3, 0), (0, 5), (40, 24), (65, 0), (90, 200)]
)
def test_the_mac_table_splits_at_the_first_multicast_address(singles: int, groups: int) -> None:
    """Also with more than 64, of which QEMU would forget all."""
    table = state(net(Feature.CTRL_RX, macs=unicast(singles) + multicast(groups))).mac_table
    assert table is not None
    assert (table.unicast, table.multicast) == (unicast(singles), multicast(groups))
    assert not table.unicast_overflow
    assert not table.multicast_overflow


@pytest.mark.parametrize("half", ["uni", "multi"])
def test_overflows(half: str) -> None:
    table = state(net(Feature.CTRL_RX, flags={f"{half}_overflow": 1})).mac_table
    assert table is not None
    assert table.unicast_overflow is (half == "uni")
    assert table.multicast_overflow is (half == "multi")


def test_addresses_that_a_guest_put_twice_or_in_the_wrong_half() -> None:
    macs = (*unicast(2), *unicast(2), *multicast(1), unicast(3)[2], *multicast(1))
    got = found(net(Feature.CTRL_RX, macs=macs))
    assert got.state is not None
    assert got.state.mac_table is not None
    assert got.state.mac_table.unicast == unicast(3)
    assert got.state.mac_table.multicast == multicast(1)
    assert any("52:54:00:00:00:02" in note for note in got.notes)


@pytest.mark.parametrize("vid", [0, 1, 7, 8, 31, 32, 2047, 4094, 4095])
def test_each_vlan_has_its_bit(vid: int) -> None:
    table = bytearray(512)
    table[vid // 8] = 1 << vid % 8
    assert state(net(Feature.CTRL_VLAN, vlans=bytes(table))).vlans == (vid,)


def test_all_vlans_are_a_table_where_the_guest_could_set_one() -> None:
    got = found(net(Feature.CTRL_VLAN, vlans=ALL_VLANS))
    assert got.state is not None
    assert got.state.vlans == tuple(range(4096))
    assert any("every VLAN" in note for note in got.notes)


@pytest.mark.parametrize("machine", ["s390-ccw-virtio-9.2", "pseries-9.2", "novel"])
def test_vlans_of_a_machine_of_unknown_byte_order_are_not_guessed(machine: str) -> None:
    got = found(net(Feature.CTRL_VLAN), machine)
    assert got.state is None
    assert [(problem.path, problem.code) for problem in got.problems] == [("vlans", "unsupported")]
    assert found(net(), machine).state is not None


def test_rss() -> None:
    device = net(
        Feature.MQ,
        Feature.RSS,
        Feature.HASH_REPORT,
        pairs=(4, 3),
        rss=made.Rss(hash_types=0b101, table=(2, 1, 0, 2), default_queue=1),
    )
    got = state(device)
    assert got.rss is not None
    assert got.rss.model_dump(mode="json") == {
        "hash_types": ["IPv4", "UDPv4"],
        "indirection_table": [2, 1, 0, 2],
        "unclassified_queue": 1,
        "max_tx_queues": 3,
        "key": made.KEY.hex(),
    }
    assert got.queue_pairs == 3
    assert got.hash_report is None


def test_a_hash_that_is_only_reported() -> None:
    device = net(Feature.HASH_REPORT, rss=made.Rss(redirect=False, hash_types=0b10, table=(0,)))
    got = state(device)
    assert got.rss is None
    assert got.hash_report is not None
    assert got.hash_report.model_dump(mode="json") == {
        "hash_types": ["TCPv4"],
        "key": made.KEY.hex(),
    }


@pytest.mark.parametrize("redirect", [False, True])
def test_rss_that_a_reset_left_on_is_not_the_guests(redirect: bool) -> None:
    """QEMU 7.2 keeps it on when the driver goes."""
    got = state(made.Net(rss=made.Rss(redirect=redirect), status=0))
    assert got == NetState(version=1, features=frozenset())


def test_a_key_that_may_have_been_shorter_is_noted() -> None:
    padded = made.Rss(key=bytes(range(1, 17)).ljust(40, b"\0"), table=(0,))
    assert any("40 bytes" in each for each in found(net(Feature.RSS, rss=padded)).notes)
    whole = made.Rss(table=(0,))
    assert not any("40 bytes" in each for each in found(net(Feature.RSS, rss=whole)).notes)


def test_rss_over_more_receive_than_transmit_queues() -> None:
    """A state's queue_pairs would say that these receive queues are not there."""
    got = state(net(Feature.MQ, Feature.RSS, pairs=(4, 2), rss=made.Rss(table=(0, 1, 2, 3))))
    assert got.rss is not None
    assert got.rss.max_tx_queues == 2
    assert got.queue_pairs is None


def test_a_setting_that_no_specification_allows_is_a_problem_with_its_path() -> None:
    got = found(net(Feature.RSS, rss=made.Rss(table=(0, 0, 0))))
    assert got.state is None
    assert [problem.path for problem in got.problems] == ["rss.indirection_table"]


def test_coalescing_is_named_as_missing() -> None:
    got = found(net(Feature.NOTF_COAL, Feature.VQ_NOTF_COAL))
    assert [each.part for each in got.missing] == [
        "coalescing.rx",
        "coalescing.tx",
        "coalescing.queues",
    ]
    assert found(net()).missing == ()


def test_what_people_want_to_know() -> None:
    about = dict(found(net(link=0, pairs=(4, 2), rings=(256, 256, 64))).about)
    assert about["link"] == "down"
    assert about["driver"] == "running"
    assert about["most pairs"] == "4"
    assert about["ring sizes"] == "256 256 64"
    assert dict(found(net(link=1)).about)["link"] == "up"


@pytest.mark.parametrize("link", range(4))
def test_an_announcement_that_is_asked_for_is_told(link: int) -> None:
    about = dict(found(net(Feature.GUEST_ANNOUNCE, link=link)).about)
    assert about["link"] == ("up" if link & 1 else "down")
    assert about.get("announcement") == (
        "asked of the guest, and not acknowledged" if link & 2 else None
    )


def test_a_subsection_of_a_newer_qemu_behind_the_features_is_noted() -> None:
    novel = made.subsection("virtio/novel", b"\5\0\1\2\3")
    got = found(net(Feature.CTRL_MAC_ADDR, more=novel))
    assert got.state is not None
    assert got.state.mac == made.MAC
    assert any("virtio/novel" in note for note in got.notes)


def _why_unreadable(got: Found) -> str:
    assert got.state is None
    (problem,) = got.problems
    assert (problem.path, problem.code) == ("", "unreadable")
    return problem.message


def _found_in(body: bytes) -> Found:
    section = made.Section("0000:00:03.0/virtio-net", body, "virtio-net")
    (got,) = read_stream(io.BytesIO(made.stream(section))).devices
    return got


def test_a_subsection_of_a_newer_qemu_before_the_features() -> None:
    whole = made.Net().encoded()
    novel = made.subsection("virtio/novel", bytes(4))
    at = whole.index(b"\x05\x15virtio/64bit_features")
    why = _why_unreadable(_found_in(whole[:at] + novel + whole[at:]))
    assert "a known subsection before the features, got 'virtio/novel'" in why


@pytest.mark.parametrize("known", ["virtio/broken", "virtio/disabled"])
def test_a_broken_device_is_noted(known: str) -> None:
    notes = found(net(more=made.subsection(known, b"\1"))).notes
    assert any("stopped the device" in note for note in notes) is (known == "virtio/broken")


def _backend(*chunks: bytes) -> bytes:
    body = b"".join(len(each).to_bytes(4, "big") + each for each in (*chunks, b""))
    return made.subsection("virtio-net-device/backend", body, version=0)


@pytest.mark.parametrize("pairs", [None, (4, 2)])
@pytest.mark.parametrize("rss", [None, made.Rss(table=(0,)), made.Rss(table=(0,), version=2)])
@pytest.mark.parametrize(
    "chunks", [(), (b"\x05",), (b"x" * 100, b"\x05\x15virtio/64bit_features", bytes(200_000))]
)
def test_a_back_end_s_own_state_is_passed_by_and_named(
    pairs: tuple[int, int] | None, rss: made.Rss | None, chunks: tuple[bytes, ...]
) -> None:
    features = [Feature.CTRL_MAC_ADDR, Feature.MQ, *([Feature.RSS] if rss else [])]
    got = found(net(*features, pairs=pairs, rss=rss, before=_backend(*chunks)))
    assert got.state is not None, got.problems
    assert got.state == state(net(*features, pairs=pairs, rss=rss))
    size = sum(map(len, chunks))
    (note,) = got.notes
    assert note.startswith(f"subsection 'virtio-net-device/backend' has {size} bytes of the ")


# As docs/formats.md has it, in two chunks.
OURS = (
    b'{"format": "vdpad-device-state", "version": 1, "writer": {"vdpad": "1.0", "back_end": "n0", ',
    b'"device": "loop"}, "missing": [{"part": "rss", "why": "lost"}], '
    b'"rings": [{"queue": 1, "base": 9}]}',
)


def test_what_a_back_end_of_ours_has_added_is_told() -> None:
    got = found(net(Feature.CTRL_MAC_ADDR, before=_backend(*OURS)))
    assert got.state == state(net(Feature.CTRL_MAC_ADDR))
    assert got.notes == ()
    assert [(each.part, each.why) for each in got.missing] == [("rss", "lost")]
    assert got.rings == ((1, 9),)
    about = dict(got.about)
    assert about["written by"] == "vdpad-vhost-user 1.0, back end n0, device loop"
    assert about["rings"] == "1 at 9"


def test_one_of_a_later_version_is_named() -> None:
    later = b"".join(OURS).replace(b'"version": 1', b'"version": 2')
    (note,) = found(net(before=_backend(later))).notes
    assert "a later vdpad wrote" in note


@pytest.mark.parametrize("cut", [1, 4, 5, 100])
def test_a_back_end_s_state_that_is_cut(cut: int) -> None:
    whole = made.Net(before=_backend(b"x" * 100)).encoded()
    rest = len(whole) - whole.index(b"x" * 100)
    _why_unreadable(_found_in(whole[: -rest + 100 + 4 - cut]))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (net(flags={"promisc": 2}), "expected 0 or 1 as promisc, got 2"),
        (net(flags={"nobcast": 255}), "expected 0 or 1 as nobcast, got 255"),
        (net(rss=made.Rss(version=3)), "expected RSS data of version 1 or 2, got 3"),
        (net(rss=made.Rss(enabled=0)), "expected RSS being switched on 0x1, got 0x0"),
        (net(pairs=(4, 5)), "expected queue pairs, 2 or more, got 5 of 4"),
        (net(pairs=(1, 1)), "expected queue pairs, 2 or more, got 1 of 1"),
        (net(pairs=(4, 0)), "expected queue pairs, 2 or more, got 0 of 4"),
        (net(more=b"\x05\x00"), "virtio"),
        (net(more=b"trailing"), "expected a subsection"),
        (net(rings=(256,) * 1025), "expected at most 1024 virtqueues, got 1025"),
    ],
)
def test_what_cannot_be_read_is_said(device: made.Net, words: str) -> None:
    why = _why_unreadable(found(device))
    assert words in why
    assert "in the virtio-net section of 0000:00:03.0" in why
    assert why.startswith("at byte ")


def test_what_can_be_read_with_queue_pairs_and_without_is_no_state() -> None:
    """A guest chooses the offloads and its rings' addresses, so it can make it look like both."""
    inner = made.subsection("virtio/64bit_features", bytes(8)) + made.subsection(
        "virtio/novel", b""
    )
    offloads, skipped = 0x0100_0021_0000_0000, 4 + 4 * (0x21 - 1) + 8
    features = made.subsection("virtio/64bit_features", bytes(8))
    before = 8 + len(features) + len(made.subsection("virtio/virtqueues", b""))
    rings = (bytes(skipped - before) + inner).ljust(16 * 1024, b"\0")
    forged = net(
        Feature.CTRL_GUEST_OFFLOADS,
        offloads=offloads,
        more=made.subsection("virtio/virtqueues", rings),
    )
    why = _why_unreadable(found(forged))
    assert "expected queue pairs or none, got what can be read as both" in why


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (3, 3, "expected PCI version 0x2, got 0x3"),
        (4 + 0x41, 0x40, "expected a list of PCI capabilities, got one without an end"),
        (4 + 0x34, 0xFE, "expected a list of PCI capabilities"),
    ],
)
def test_a_pci_layer_that_makes_no_sense(at: int, value: int, words: str) -> None:
    body = bytearray(net(vectors=3).encoded())
    body[at] = value
    assert words in _why_unreadable(_found_in(bytes(body)))
