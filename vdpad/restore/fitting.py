"""Whether a state fits a device: every reason why it does not, with its path in the state."""

from collections.abc import Iterator

from vdpad.restore.capabilities import Capabilities
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.virtio.commands import Command, MacTableSet, MqHashConfig, MqRssConfig
from vdpad.virtio.config import HASH_TYPES, TUNNEL_TYPES
from vdpad.virtio.features import FEATURES, PROVIDED_BY_VMM, TRANSPORT, Feature, FeatureSet

# The parts whose command has no fixed size, for telling which one is too large.
_SIZED_PARTS = {MacTableSet: "mac_table", MqRssConfig: "rss", MqHashConfig: "hash_report"}


def device_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    """What of a state the device has not, or has less of."""
    yield from _feature_problems(state, device.features)
    yield from _queue_problems(state, device)
    yield from _rss_problems(state, device)
    yield from _hash_report_problems(state, device)
    yield from _hash_tunnel_problems(state, device)
    yield from _coalescing_problems(state, device)


def missing_features(guest: FeatureSet, offered: FeatureSet) -> Iterator[Problem]:
    """What a guest negotiated that a device does not have; at most one problem."""
    missing = guest - offered - PROVIDED_BY_VMM - set(TRANSPORT)
    if missing:
        names = FEATURES.sentence(missing)
        yield Problem(
            "features", "missing-feature", f"the guest negotiated {names}; the device has not"
        )


def _feature_problems(state: NetState, offered: FeatureSet) -> Iterator[Problem]:
    yield from missing_features(state.features, offered)
    for path, wanted in state.needs():
        if not offered.intersection(wanted):
            either = " or ".join(each.name for each in wanted)
            dotted = ".".join(map(str, path))
            yield Problem(dotted, "missing-feature", f"needs {either}; the device has not")


def _queue_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    most = device.max_queue_pairs
    if state.queue_pairs is not None and state.queue_pairs > most:
        yield _too_many("queue_pairs", "queue pairs", state.queue_pairs, most)
    if state.rss is not None and state.rss.max_tx_queues > most:
        yield _too_many("rss.max_tx_queues", "transmit queues", state.rss.max_tx_queues, most)
    for path, code, message in state.rss_queue_faults(most):
        yield Problem(".".join(map(str, path)), code, f"{message}, which are all the device has")


def _too_many(path: str, what: str, wanted: int, most: int) -> Problem:
    return Problem(path, "out-of-range", f"{wanted} {what}; the device takes {most}")


def _rss_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    if state.rss is None or Feature.RSS not in device.features:
        return
    length = len(state.rss.indirection_table)
    most = device.rss_max_indirection_table_length
    if length > most:
        yield Problem(
            "rss.indirection_table", "too-long", f"{length} entries; the device takes {most}"
        )
    yield from _hash_problems("rss", state.rss.hash_types, state.rss.key, device)


def _hash_report_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    report = state.hash_report
    if report is not None and Feature.HASH_REPORT in device.features:
        yield from _hash_problems("hash_report", report.hash_types, report.key, device)


def _hash_tunnel_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    if state.hash_tunnel is None or Feature.HASH_TUNNEL not in device.features:
        return
    unsupported = state.hash_tunnel.types - device.supported_tunnel_types
    if unsupported:
        names = TUNNEL_TYPES.sentence(unsupported)
        yield Problem(
            "hash_tunnel.types",
            "unsupported",
            f"{names}; the device does not hash over inner headers of these",
        )


def _hash_problems(
    path: str, hash_types: frozenset[int], key: bytes, device: Capabilities
) -> Iterator[Problem]:
    unsupported = hash_types - device.supported_hash_types
    if unsupported:
        names = HASH_TYPES.sentence(unsupported)
        yield Problem(
            f"{path}.hash_types", "unsupported", f"{names}; the device does not hash over these"
        )
    if len(key) > device.rss_max_key_size:
        yield Problem(
            f"{path}.key",
            "too-long",
            f"{len(key)} bytes; the device takes {device.rss_max_key_size}",
        )


def _coalescing_problems(state: NetState, device: Capabilities) -> Iterator[Problem]:
    """Where a virtqueue is named that the device does not have.

    Not only those in use: Linux sets the values of all its queues, however many of them it uses.
    """
    if state.coalescing is None or not state.coalescing.queues:
        return
    queues = 2 * device.max_queue_pairs
    outside = sorted(int(index) for index in state.coalescing.queues if int(index) >= queues)
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        yield Problem(
            f"coalescing.queues.{outside[0]}",
            "out-of-range",
            f"virtqueue {outside[0]}{more}; the device has 0 … {queues - 1} for packets",
        )


def too_large(commands: tuple[Command, ...], device: Capabilities) -> Iterator[Problem]:
    """Which commands are longer than the queue's buffers."""
    for command in commands:
        path = _SIZED_PARTS.get(type(command))
        if path is None:
            continue
        size = len(command.encode())
        if size > device.largest_command:
            yield Problem(
                path,
                "too-large",
                f"{command.NAME} is {size} bytes; the queue's buffers take "
                f"{device.largest_command}",
            )
