"""The state of a running QEMU's virtio-net device, over QMP. Changes nothing there.

query-rx-filter is stable and tells no features. x-query-virtio-status does, and is not: QEMU 11.1
fails an assertion on it, whatever the device, and takes the guest with it (seen on 11.1.3). So it
is asked only where the caller wants it, and no QEMU beyond those that were seen to answer.

query-rx-filter names a card by the device's id, or, where it has none, by its type and a number.
x-query-virtio lists devices by QOM paths, with the id in them: /machine/peripheral/ID, or
/machine/peripheral-anon/device[N]. So a card with an id finds its device; one without finds it
where only one card and one device are left over, and else nobody guesses.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdpad.cli.failures import Usage
from vdpad.cli.qmp import CommandError, Qmp
from vdpad.state.formats.qemu_features import guest_features
from vdpad.state.formats.rx_filter import RxFilter, found_in, rx_filters
from vdpad.state.found import FormatError, Found
from vdpad.virtio.bits import UnknownName
from vdpad.virtio.features import FEATURES, FeatureSet

_VIRTIO_NET = "virtio-net"
_ID = re.compile(r"/machine/peripheral/([^/]+)(/virtio-backend)?")
_GIVE = "say what its guest negotiated with --features"
# The first that has x-query-virtio-status, and the last that was seen to survive it.
_FIRST, _LAST = (7, 2), (10, 0)
# A guest's /sys/bus/virtio/devices/virtioN/features: a digit for each bit, bit 0 first.
_SYSFS = re.compile(r"[01]{64}|[01]{128}")


def capture(path: Path, timeout: float, device: str | None, features: str | None) -> Found:
    """What QEMU shows of a device.

    Args:
        path: QEMU's QMP socket.
        timeout: for all of it, in seconds.
        device: its id, or the name that query-rx-filter gives; None where there is only one.
        features: what the guest negotiated: names with commas or spaces between, or the digits of
            its sysfs; None to ask QEMU, which not every QEMU survives.

    Raises:
        QmpError: nobody answers, or not as QMP has it.
        FormatError: QEMU's answers are not what they are known to be.
        Usage: there is no such device, or the features must be given.
    """
    given = None if features is None else _features(features)
    with Qmp(path, timeout) as qmp:
        cards = rx_filters(qmp.execute("query-rx-filter"))
        card = _choose(cards, device)
        negotiated = _asked(qmp, card, cards) if given is None else given
    try:
        return found_in(card, negotiated)
    except FormatError as error:
        raise Usage(str(error)) from error


def _features(given: str) -> FeatureSet:
    if _SYSFS.fullmatch(given.strip()):
        return frozenset(bit for bit, digit in enumerate(given.strip()) if digit == "1")
    try:
        return frozenset(FEATURES.bit(name) for name in given.replace(",", " ").split())
    except UnknownName as error:
        raise Usage(f"--features: {error}") from error


def _choose(cards: Sequence[RxFilter], device: str | None) -> RxFilter:
    fitting = [each for each in cards if device in (None, each.name)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(each.name for each in cards) or "none"
    expected = "--device to say which one" if device is None else f"one device named {device}"
    raise Usage(f"expected {expected}; network cards with a receive filter: {there}")


def _asked(qmp: Qmp, card: RxFilter, cards: Sequence[RxFilter]) -> FeatureSet:
    """What QEMU says that the card's guest negotiated."""
    _check_version(qmp.execute("query-version"))
    try:
        path = _path_of(card, cards, qmp.execute("x-query-virtio"))
        return guest_features(qmp.execute("x-query-virtio-status", path=path))
    except CommandError as error:
        raise Usage(f"QEMU does not tell features ({error}): {_GIVE}") from error
    except FormatError as error:
        raise Usage(f"{error}: {_GIVE}") from error


def _check_version(answer: object) -> None:
    match answer:
        case {"qemu": {"major": int(major), "minor": int(minor)}}:
            if not _FIRST <= (major, minor) <= _LAST:
                raise Usage(
                    f"expected QEMU {_dotted(_FIRST)} … {_dotted(_LAST)}, which tell features, got "
                    f"{major}.{minor}: {_GIVE}"
                )
            return
    raise FormatError("query-version: expected a major and a minor version")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _path_of(card: RxFilter, cards: Sequence[RxFilter], devices: object) -> str:
    paths = _paths(devices)
    by_id = {match[1]: path for path in paths if (match := _ID.fullmatch(path))}
    if card.name in by_id:
        return by_id[card.name]
    names = [each.name for each in cards if each.name not in by_id]
    left_over = [path for path in paths if path not in by_id.values()]
    if len(names) == len(left_over) == 1:
        return left_over[0]
    raise Usage(f"which virtio device {card.name} is cannot be told without an id: {_GIVE}")


def _paths(devices: object) -> list[str]:
    """The QOM paths of the virtio-net devices.

    Raises:
        FormatError: it is no answer of x-query-virtio's.
    """
    match devices:
        case list():
            return [path for each in devices if (path := _path_of_net(each)) is not None]
    raise FormatError(f"x-query-virtio: expected a list, got {type(devices).__name__}")


def _path_of_net(device: Any) -> str | None:
    match device:
        case {"name": str(name), "path": str(path)}:
            return path if name == _VIRTIO_NET else None
    raise FormatError("x-query-virtio: expected a name and a path for each device")
