"""The virtio layer: what every virtio device has, before its own settings and behind them.

Source: QEMU's hw/virtio/virtio.c and virtio-pci.c as observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vdpad.state.formats.qemu.source import Source
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import FeatureSet

# QEMU's VIRTIO_QUEUE_MAX, and more than any virtio_net_config.
_MAX_QUEUES = 1024
_MAX_CONFIG = 4096
SUBSECTION = 0x05

DRIVER_OK = 0x04

# Bytes of each subsection behind the device's own, so that the walk ends where the section does.
# virtio/extra_state has but a subsection of its own.
_SIZES: Mapping[str, int] = {
    "virtio/device_endian": 1,
    "virtio/128bit_features": 8,
    "virtio/64bit_features": 8,
    "virtio/virtqueues": 16 * _MAX_QUEUES,
    "virtio/ringsize": 4 * _MAX_QUEUES,
    "virtio/broken": 1,
    "virtio/extra_state": 0,
    "virtio_pci/modern_state": 16 + 28 * _MAX_QUEUES,
    "virtio_pci/modern_state/features128": 8,
    "virtio/started": 1,
    "virtio/packed_virtqueues": 10 * _MAX_QUEUES,
    "virtio/disabled": 1,
}


@dataclass(frozen=True, slots=True)
class VirtioHead:
    """What stands before the device's own settings."""

    status: int
    """The device status; DRIVER_OK where a driver runs."""
    low_features: int
    """The mask of the negotiated features 0 to 31."""
    ring_sizes: tuple[int, ...]
    """Of each virtqueue, in descriptors."""


@dataclass(frozen=True, slots=True)
class VirtioTail:
    """What stands behind the device's own settings."""

    features: FeatureSet
    """The negotiated ones."""
    broken: bool
    """QEMU has stopped the device for what its driver did."""
    unread: str
    """The subsection that is not known, from which on nothing was read; empty where all was."""


def pull_head(source: Source, *, msix: bool) -> VirtioHead:
    """Reads up to the device's own settings.

    Raises:
        FormatError: it makes no sense, or ends too early.
    """
    status = source.u8("the device status")
    source.take(1 + 2, "the interrupt status and the queue selector")
    low_features = source.u32("the low features")
    length = source.u32("the config's length")
    if length > _MAX_CONFIG:
        raise source.wrong(f"a config of at most {_MAX_CONFIG} bytes", str(length), source.at - 4)
    source.take(length, "the config")
    count = source.u32("the number of virtqueues")
    if count > _MAX_QUEUES:
        raise source.wrong(f"at most {_MAX_QUEUES} virtqueues", str(count), source.at - 4)
    return VirtioHead(status, low_features, tuple(_queue(source, msix=msix) for _ in range(count)))


def _queue(source: Source, *, msix: bool) -> int:
    size = source.u32("a ring's size")
    source.take(8 + 2 + (2 if msix else 0), "a virtqueue")
    return size


def pull_subsection(source: Source) -> tuple[str, int]:
    """Reads a subsection's header: its name and version."""
    source.expect("a subsection", SUBSECTION, source.u8("a subsection's mark"), 1)
    start = source.at
    name = source.name("a subsection's name")
    if not name.startswith("virtio"):
        raise source.wrong("a subsection of virtio's", repr(name), start)
    return name, source.u32("its version")


def pull_tail(source: Source, name: str, low_features: int, end: int) -> VirtioTail:
    """Reads from behind the header of the first subsection of virtio's own to the section's end.

    Args:
        source: the section.
        name: of that subsection; empty where there is none.
        low_features: features 0 to 31, where the device has no others.
        end: the section's end, as an offset in the stream.

    Raises:
        FormatError: the subsections do not end where the section does.
    """
    found: dict[str, bytes] = {}
    while name in _SIZES:
        found[name] = source.take(_SIZES[name], name)
        name = pull_subsection(source)[0] if source.at < end else ""
    if name and "virtio/64bit_features" not in found:
        raise source.wrong("a known subsection before the features", repr(name))
    low = found.get("virtio/64bit_features", low_features.to_bytes(8, "big"))
    high = found.get("virtio/128bit_features", bytes(8))
    return VirtioTail(
        features=bits_of(int.from_bytes(high + low, "big")),
        broken=found.get("virtio/broken", b"\0") != b"\0",
        unread=name,
    )
