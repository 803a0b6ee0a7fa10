"""Negotiated features, as QEMU's sentences and masks tell them."""

from typing import Any

import pytest

from vdpad.state.formats.qemu_features import guest_features
from vdpad.state.found import FormatError
from vdpad.virtio.features import FEATURES, Feature

# What QEMU 7.2.22 and 10.0.2 were seen to print, and what 10.2's sources have beside.
SENTENCES = {
    "VIRTIO_NET_F_CSUM: Device handling packets with partial checksum supported": 0,
    "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: Control channel offloading reconfig. supported": 2,
    "VIRTIO_NET_F_MTU: Device max MTU reporting supported": 3,
    "VIRTIO_NET_F_MAC: Device has given MAC address": 5,
    "VIRTIO_NET_F_GSO: Handling GSO-type packets supported": 6,
    "VIRTIO_NET_F_GUEST_TSO6: Driver can receive TSOv6": 8,
    "VIRTIO_NET_F_MRG_RXBUF: Driver can merge receive buffers": 15,
    "VIRTIO_NET_F_CTRL_RX_EXTRA: Extra RX mode control supported": 20,
    "VIRTIO_NET_F_MQ: Multiqueue with automatic receive steering supported": 22,
    "VIRTIO_F_NOTIFY_ON_EMPTY: Notify when device runs out of avail. descs. on VQ": 24,
    "VHOST_F_LOG_ALL: Logging write descriptors supported": 26,
    "VIRTIO_F_ANY_LAYOUT: Device accepts arbitrary desc. layouts": 27,
    "VIRTIO_RING_F_INDIRECT_DESC: Indirect descriptors supported": 28,
    "VIRTIO_RING_F_EVENT_IDX: Used & avail. event fields enabled": 29,
    "VHOST_USER_F_PROTOCOL_FEATURES: Vhost-user protocol features negotiation supported": 30,
    "VIRTIO_F_VERSION_1: Device compliant for v1 spec (legacy)": 32,
    "VIRTIO_F_IOMMU_PLATFORM: Device can be used on IOMMU platform": 33,
    "VIRTIO_F_RING_PACKED: Device supports packed VQ layout": 34,
    "VIRTIO_F_IN_ORDER: Device uses buffers in same order as made available by driver": 35,
    "VIRTIO_F_ORDER_PLATFORM: Memory accesses ordered by platform": 36,
    "VIRTIO_F_SR_IOV: Device supports single root I/O virtualization": 37,
    "VIRTIO_F_RING_RESET: Driver can reset a queue individually": 40,
    "VIRTIO_NET_F_NOTF_COAL: Device supports coalescing notifications": 53,
    "VIRTIO_NET_F_GUEST_USO4: Driver can receive USOv4": 54,
    "VIRTIO_NET_F_GUEST_USO4: Driver can receive USOv6": 55,
    "VIRTIO_NET_F_HOST_USO: Device can receive USO": 56,
    "VIRTIO_NET_F_RSS: RSS RX steering supported": 60,
    "VIRTIO_NET_F_STANDBY: Device acting as standby for primary device with same MAC addr. "
    "supported": 62,
    "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO: Driver can receive GSO over UDP tunnel packets": 65,
    "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO: Driver can receive GSO over UDP tunnel packets requiring "
    "checksum offload for the outer header": 66,
    "VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM: Device can receive GSO over UDP tunnel packets "
    "requiring checksum offload for the outer header": 68,
}


def status(*sentences: str, transports: tuple[str, ...] = (), **masks: Any) -> dict[str, Any]:
    """An answer of x-query-virtio-status' with these features."""
    named = {"dev-features": list(sentences), "transports": list(transports)}
    more = {key.replace("_", "-"): value for key, value in masks.items()}
    return {"name": "virtio-net", "guest-features": {**named, **more}}


@pytest.mark.parametrize(("sentence", "bit"), SENTENCES.items(), ids=SENTENCES.values())
def test_a_sentence_is_a_feature(sentence: str, bit: int) -> None:
    assert guest_features(status(sentence)) == {bit}
    assert guest_features(status(transports=(sentence,))) == {bit}


def test_all_at_once() -> None:
    assert guest_features(status(*SENTENCES)) == set(SENTENCES.values())


@pytest.mark.parametrize("feature", Feature)
def test_a_feature_that_a_later_qemu_names_rightly(feature: Feature) -> None:
    prefix = "VIRTIO_" if feature.name.startswith("RING_") else "VIRTIO_NET_F_"
    if feature in (Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX):
        prefix = "VIRTIO_RING_F_"
    elif 24 <= feature < 50:
        prefix = "VIRTIO_F_"
    name = feature.name.removeprefix("RING_") if "RING_F" in prefix else feature.name
    assert guest_features(status(f"{prefix}{name}: whatever it says")) == {feature}


def test_what_has_no_sentence_comes_as_masks() -> None:
    low, high = 1 << 40 | 1 << 63, 1 << 1 | 1 << 63
    answer = status("VIRTIO_NET_F_MQ: x", unknown_dev_features=low, unknown_dev_features2=high)
    assert FEATURES.names(guest_features(answer)) == [
        "MQ",
        "RING_RESET",
        "SPEED_DUPLEX",
        "GUEST_UDP_TUNNEL_GSO",
        "bit_127",
    ]


@pytest.mark.parametrize(
    "sentence",
    ["VIRTIO_NET_F_NEWEST: x", "VIRTIO_F_RING_EVENT: x", "MQ", "", "VIRTIO_NET_F_bit_5: x"],
)
def test_a_sentence_that_nobody_knows_is_told(sentence: str) -> None:
    with pytest.raises(FormatError, match="expected features that are known") as refused:
        guest_features(status(sentence))
    assert repr(sentence) in str(refused.value)


def test_another_name_that_is_there_twice_is_not_taken_for_one() -> None:
    with pytest.raises(FormatError, match="one twice"):
        guest_features(status("VIRTIO_NET_F_MQ: one", "VIRTIO_NET_F_MQ: another"))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"guest-features": {}},
        {"guest-features": {"transports": "x"}},
        status(1),  # type: ignore[arg-type]
        status(unknown_dev_features=-1),
        status(unknown_dev_features=1 << 64),
        status(unknown_dev_features=True),
        status(unknown_dev_features2=1 << 64),
    ],
)
def test_what_is_no_answer_of_qemu_s_is_refused(answer: object) -> None:
    with pytest.raises(FormatError, match="x-query-virtio-status"):
        guest_features(answer)
