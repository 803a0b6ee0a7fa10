"""How a command's device-readable bytes are laid out in buffers.

As the driver likes, and so in one, where the device takes that: with VERSION_1, or ANY_LAYOUT. A
legacy device that has neither may go by where buffers begin, and gets the simple layout of its
time: class and command by themselves, and behind them the data, of a MAC table each half by itself.
The ack is one byte by itself in any case.

Source: virtio 1.4, 2.7.4 "Message Framing" and 5.1.6.6 "Legacy Interface: Framing Requirements".
"""

from vdpad.virtio.commands import MacTableSet
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.raw_command import AnyCommand

DESCRIPTORS = 2
"""Of a command with its ack, where the layout is free."""
LEGACY_DESCRIPTORS = 4
"""At the most, in the legacy layout: those of MAC_TABLE_SET."""

_HEADER = 2
_COUNT = 4
_MAC = 6


def is_legacy(features: FeatureSet) -> bool:
    """Whether a device that has negotiated these may go by the buffers."""
    return features.isdisjoint((Feature.VERSION_1, Feature.ANY_LAYOUT))


def buffers_of(command: AnyCommand, size: int, *, legacy: bool) -> tuple[int, ...]:
    """The sizes of its buffers, in bytes.

    Args:
        command: any.
        size: of all of it, in bytes.
        legacy: as of `is_legacy`.
    """
    if not legacy:
        return (size,)
    if isinstance(command, MacTableSet):
        unicast = _COUNT + _MAC * len(command.unicast)
        return _HEADER, unicast, size - _HEADER - unicast
    return (_HEADER, size - _HEADER) if size > _HEADER else (_HEADER,)
